"""Every verb, by the name it has in cmd_log: a file of this package holds one."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module

from shardman import commands
from shardman.commands.arguments import Option
from shardman.commands.base import Command
from shardman.errors import Code, UserError


def _verbs() -> Iterable[type[Command]]:
    for module in pkgutil.iter_modules(commands.__path__):
        for found in vars(import_module(f"{commands.__name__}.{module.name}")).values():
            if isinstance(found, type) and issubclass(found, Command) and hasattr(found, "name"):
                yield found


COMMANDS: dict[str, type[Command]] = {c.name: c for c in _verbs()}


def read(cmd_type: str, options: Iterable[Option]) -> Command:
    """The command of a row of cmd_log.

    Raises:
        UserError: this version has no such command, or its options make no sense.
    """
    try:
        verb = COMMANDS[cmd_type]
    except KeyError:
        raise UserError(
            f"this version of the shardlord does not know the command {cmd_type}",
            "Use one of: " + ", ".join(sorted(COMMANDS)),
            code=Code.UNKNOWN_COMMAND,
        ) from None
    return verb.from_options(options)
