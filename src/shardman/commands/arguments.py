"""What a verb is given: declared once, at the fields of its class.

From a field come the argument of the program, that of the client's method, and the option by which the
command is written down (`shardman.cmd_opts`, one row an option) and read again. A test compares the SQL
function of the verb and its page in docs/commands/ with the fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from shardman.errors import Code, UserError

#: The key of a field's metadata.
_ARGUMENT = "argument"

#: An option as it is written down: its name, and its value as text. A worker of version 0.1 submits no
#: names: its options are those of the first fields, in their order.
Option = tuple[str | None, str | None]


class Kind(StrEnum):
    """What an argument names. A shell completes it, and the SQL function writes it as the metadata does."""

    PLAIN = "plain"
    NODE = "node"
    PARTITION = "partition"
    RELATION = "relation"


@dataclass(frozen=True)
class _Declared:
    """What `argument` was told."""

    help: str
    kind: Kind
    at_least: int | None
    at_most: int | None
    off: str | None
    words: tuple[str, str] | None
    positional: bool
    secret: bool


@dataclass(frozen=True)
class Argument:
    """A field of a verb.

    Args:
        name: in Python and in SQL.
        type: without None: int, str or bool.
        choices: the values there are, where they are few.
        optional: whether it may be None, null in SQL.
        default: MISSING where it must be given.
        help: one sentence.
        kind: what it names.
        at_least, at_most: of a number.
        off: the program's option that turns a bool which is true by default off, say ``--end``.
        words: for true and false, where the program wants a word, say ``on`` and ``off``.
        positional: whether the program takes it without a name; as a rule what has no default.
        secret: it may hold a password, so the program takes ``-`` and reads it from standard input.
    """

    name: str
    type: type[int | str | bool]
    choices: tuple[str, ...]
    optional: bool
    default: Any
    help: str
    kind: Kind
    at_least: int | None
    at_most: int | None
    off: str | None
    words: tuple[str, str] | None
    positional: bool
    secret: bool

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def sql_type(self) -> str:
        """As ``format_type`` prints it."""
        return {int: "integer", str: "text", bool: "boolean"}[self.type]

    def encode(self, value: Any) -> str | None:
        """A value as it is written down."""
        if value is None:
            return None
        return str(value).lower() if self.type is bool else str(value)

    def decode(self, text: str | None) -> Any:
        """A value as it was written down.

        Raises:
            ValueError: it is none.
        """
        if text is None:
            if self.optional:
                return None
            if self.required:
                raise ValueError("null")
            return self.default
        if self.type is bool:
            return {"true": True, "t": True, "false": False, "f": False}[text]
        if self.choices and text not in self.choices:
            raise ValueError(text)
        return self.type(text)


def argument(
    help: str,  # noqa: A002  (as typer and argparse call it)
    *,
    default: Any = MISSING,
    kind: Kind = Kind.PLAIN,
    at_least: int | None = None,
    at_most: int | None = None,
    off: str | None = None,
    words: tuple[str, str] | None = None,
    positional: bool | None = None,
    secret: bool = False,
) -> Any:
    """Declares a field of a verb; see `Argument` for what the words mean."""
    alone = default is MISSING if positional is None else positional
    declared = _Declared(help, kind, at_least, at_most, off, words, alone, secret)
    return field(default=default, metadata={_ARGUMENT: declared})


def arguments_of(verb: type[Any]) -> tuple[Argument, ...]:
    """The arguments of a verb, in their order.

    Raises:
        TypeError: a field is not declared by `argument`, or has a type that no option can have.
    """
    hints = get_type_hints(verb)
    return tuple(_of_field(f.name, hints[f.name], f.default, f.metadata) for f in fields(verb))


def _of_field(name: str, hint: Any, default: Any, metadata: Mapping[str, Any]) -> Argument:
    if _ARGUMENT not in metadata:
        raise TypeError(f"the field {name} is not declared by argument(…)")
    given: _Declared = metadata[_ARGUMENT]
    kinds = (
        [t for t in get_args(hint) if t is not NoneType] if NoneType in get_args(hint) else [hint]
    )
    choices = get_args(kinds[0]) if get_origin(kinds[0]) is Literal else ()
    type_ = str if choices else kinds[0]
    if len(kinds) != 1 or type_ not in (int, str, bool):
        raise TypeError(f"the field {name} has the type {hint}, which no option can have")
    return Argument(name, type_, choices, NoneType in get_args(hint), default, **vars(given))


def encode(command: object, arguments: Iterable[Argument]) -> dict[str, str | None]:
    """The options of a command, by name."""
    return {a.name: a.encode(getattr(command, a.name)) for a in arguments}


def decode(name: str, arguments: Iterable[Argument], options: Iterable[Option]) -> dict[str, Any]:
    """The values of a verb's fields, out of the options that were written down.

    Args:
        name: of the verb, for the error.

    Raises:
        UserError: an option is unknown, missing or makes no sense.
    """
    known = {a.name: a for a in arguments}
    given = _by_name(name, list(known), list(options))
    for missing in (a for a in known.values() if a.required and a.name not in given):
        raise UserError(f"{name} needs {missing.name}", "Give one", code=Code.BAD_ARGUMENT)
    return {key: _decode(name, known[key], text) for key, text in given.items()}


def _by_name(verb: str, known: list[str], options: list[Option]) -> dict[str, str | None]:
    if len(options) > len(known) and not all(key for key, _ in options):
        raise _unknown(verb, f"argument {len(known) + 1}")
    named = {key or known[n]: text for n, (key, text) in enumerate(options)}
    if strange := named.keys() - set(known):
        raise _unknown(verb, min(strange))
    return named


def _unknown(verb: str, which: str) -> UserError:
    return UserError(
        f"this version of the shardlord knows no {which} of {verb}",
        "Submit it on a node that has the shardlord's version",
        code=Code.UNKNOWN_COMMAND,
    )


def _decode(verb: str, argument_: Argument, text: str | None) -> Any:
    try:
        return argument_.decode(text)
    except (ValueError, KeyError):
        choices = f"Use {' or '.join(argument_.choices)}" if argument_.choices else "Give another"
        raise UserError(
            f"{verb} cannot have {'null' if text is None else text} as {argument_.name}",
            choices,
            code=Code.BAD_ARGUMENT,
        ) from None
