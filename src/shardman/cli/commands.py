"""A command of the program for each verb, made out of the verb's definition: it submits the command as any
user would, and follows it."""

from __future__ import annotations

import sys
from enum import Enum
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

import typer

from shardman.cli import complete, output, plan, wait
from shardman.cli.options import INT_MAX, DryRun, Dsn, Json, NoWait, Timeout
from shardman.client.client import connect
from shardman.commands.arguments import Argument, Kind
from shardman.commands.base import Command
from shardman.commands.registry import COMMANDS

app = typer.Typer()

_PANEL = "Change the cluster (the shardlord does the work)"
_HIDDEN = (
    " Given as -, it is read from standard input, so that a password is not seen in the list of"
    " processes."
)
_COMPLETE = {
    Kind.NODE: complete.workers,
    Kind.PARTITION: complete.partitions,
    Kind.RELATION: complete.relations,
}


def _run(
    verb: type[Command],
    given: dict[str, Any],
    *,
    dsn: Dsn,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    if dry_run:
        plan.show(dsn, verb, given, json=json)
        return
    with connect(dsn) as client:
        submitted = getattr(client, verb.name)(**given, wait=False)
    if not no_wait:
        wait.follow(dsn, submitted.id, timeout, json=json)
    elif json:
        output.print_json(submitted)
    else:
        typer.echo(submitted.id)


#: The options that every command has.
_HOW = [
    p
    for p in signature(_run, eval_str=True).parameters.values()
    if p.kind is Parameter.KEYWORD_ONLY
]


def _words(argument: Argument) -> type[Enum] | None:
    """The words that the program wants for an argument, where they are few."""
    words = argument.choices or argument.words or ()
    return Enum(argument.name, {w: w for w in words}, type=str) if words else None  # type: ignore[return-value]


def _at_most(argument: Argument) -> int | None:
    """No number may be larger than SQL's."""
    return argument.at_most or (INT_MAX if argument.type is int else None)


def _parameter(argument: Argument) -> Parameter:
    """As typer reads it off a signature."""
    words = _words(argument)
    kind: Any = words or argument.type
    default = Parameter.empty if argument.required else argument.default
    if argument.positional:
        info: Any = typer.Argument(
            metavar=_metavar(argument),
            help=argument.help + (_HIDDEN if argument.secret else ""),
            min=argument.at_least,
            max=_at_most(argument),
            autocompletion=_COMPLETE.get(argument.kind),
            show_default=False,
        )
    else:
        flags = (argument.off,) if argument.off else _flags(argument)
        info = typer.Option(
            *flags,
            help=argument.help,
            min=argument.at_least,
            max=_at_most(argument),
            autocompletion=_COMPLETE.get(argument.kind),
            show_default=default not in (None, False) and not argument.off,
        )
    if argument.off:
        default = False
    elif words and default is not Parameter.empty:
        default = words(default)
    elif argument.optional:
        kind, default = kind | None, None if default is Parameter.empty else default
    return Parameter(
        argument.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def _metavar(argument: Argument) -> str:
    if words := argument.choices or argument.words:
        return "|".join(words)
    return argument.name.upper()


def _flags(argument: Argument) -> tuple[str, ...]:
    """Of an option. One that is off by default can only be turned on."""
    flag = "--" + argument.name.replace("_", "-")
    return (flag,) if argument.default is False or argument.type is not bool else ()


def _value(argument: Argument, given: Any) -> Any:
    """What the verb is given for what the program was."""
    if argument.off:
        return not given
    if argument.words:
        return given.value == argument.words[0]
    if argument.secret and given == "-":
        return sys.stdin.readline().strip()
    return given.value if isinstance(given, Enum) else given


def _register(verb: type[Command]) -> None:
    arguments = verb.arguments()

    def run(**given: Any) -> None:
        how = {p.name: given.pop(p.name) for p in _HOW}
        _run(verb, {a.name: _value(a, given[a.name]) for a in arguments}, **how)

    run.__name__, run.__doc__ = verb.name, verb.summary
    # The program's options are read off the signature.
    vars(run)["__signature__"] = Signature([*map(_parameter, arguments), *_HOW])
    app.command(rich_help_panel=_PANEL)(run)


for _verb in COMMANDS.values():
    _register(_verb)
