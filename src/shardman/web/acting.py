"""What an operator may do from the page: commands, each with its plan before it is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardman.client.client import connect
from shardman.commands.arguments import Argument
from shardman.commands.base import Command
from shardman.commands.registry import COMMANDS
from shardman.errors import Code, UserError
from shardman.preview import Preview, preview

#: What the page offers, in this order; the program and SQL have all commands.
OFFERED = (
    "move_part",
    "switch_primary",
    "create_replica",
    "rm_replica",
    "set_replevel",
    "rebalance",
    "drain_node",
    "failover",
    "drop_aside",
)


def offered(name: str) -> type[Command]:
    """The verb of a name.

    Raises:
        UserError: the page does not offer it.
    """
    if name not in OFFERED:
        raise UserError(
            f"the page does not offer {name}",
            "Use the program shardman, or SQL",
            code=Code.UNKNOWN_COMMAND,
        )
    return COMMANDS[name]


def read(verb: type[Command], form: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of a verb out of a form; a field that is empty has its default.

    Raises:
        UserError: one is missing or makes no sense.
    """
    return {a.name: _value(a, form.get(a.name, "").strip()) for a in verb.arguments()}


def _value(argument: Argument, text: str) -> Any:
    if not text:
        if argument.required:
            raise UserError(f"{argument.name} is missing", "Give it", code=Code.BAD_ARGUMENT)
        return argument.default
    try:
        return argument.decode(text)
    except (ValueError, KeyError):
        raise UserError(
            f"{text} is no {argument.name}", argument.help, code=Code.BAD_ARGUMENT
        ) from None


def plan(dsn: str, name: str, form: Mapping[str, str]) -> Preview:
    """What a command would do. Not to be called in an event loop.

    Raises:
        UserError: it cannot be done, or makes no sense.
    """
    verb = offered(name)
    return preview(dsn, verb, read(verb, form))


def submit(dsn: str, name: str, form: Mapping[str, str]) -> int:
    """Submits a command; returns its number.

    Raises:
        UserError: it makes no sense, or the role may not.
    """
    verb = offered(name)
    given = read(verb, form)
    with connect(dsn) as client:
        return int(getattr(client, name)(**given, wait=False).id)


def cancel(dsn: str, number: int) -> bool:
    """Cancels a command; whether that was possible.

    Raises:
        UserError: the role may not.
    """
    with connect(dsn) as client:
        return client.cancel(number)
