"""Writes `shardman.client.verbs`: a method for each verb, out of the verbs' own definitions.

``python -m shardman.client.generate`` after a verb was changed; a test fails until that is done. The module is
kept in the tree rather than made at run time, so that mypy, editors and readers know the methods.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

from shardman.commands.arguments import Argument
from shardman.commands.base import Command
from shardman.commands.registry import COMMANDS

#: As the code is formatted.
_WIDTH = 100

TARGET = Path(__file__).with_name("verbs.py")

_HEAD = '''"""A method for each verb. Made by ``python -m shardman.client.generate``, not by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from shardman.client.result import Result


class Verbs(ABC):
    """The commands. Each submits itself and waits until it has ended, at most ``timeout`` seconds; with
    ``wait=False`` it returns at once."""

    @abstractmethod
    def _run(
        self, name: str, arguments: Mapping[str, Any], wait: bool, timeout: float | None
    ) -> Result:
        """Submits a command, and waits for its end if asked to."""
'''


def source() -> str:
    """The text of the module."""
    return _HEAD + "".join(_method(verb) for _, verb in sorted(COMMANDS.items()))


def _method(verb: type[Command]) -> str:
    arguments = verb.arguments()
    given = "".join(f"        {_parameter(a)},\n" for a in arguments)
    values = "".join(f'            "{a.name}": {a.name},\n' for a in arguments)
    described = "".join(map(_described, arguments))
    return (
        f"\n    def {verb.name}(\n        self,\n{given}        *,\n        wait: bool = True,\n"
        f"        timeout: float | None = None,\n    ) -> Result:\n"
        f'        """{verb.summary}\n\n        Args:\n{described}        """\n'
        f"        arguments = {{\n{values}        }}\n"
        f'        return self._run("{verb.name}", arguments, wait, timeout)\n'
    )


def _parameter(argument: Argument) -> str:
    kind = (
        "Literal[" + ", ".join(f'"{c}"' for c in argument.choices) + "]"
        if argument.choices
        else argument.type.__name__
    )
    kind += " | None" if argument.optional else ""
    if argument.required:
        return f"{argument.name}: {kind}"
    default = f'"{argument.default}"' if isinstance(argument.default, str) else argument.default
    return f"{argument.name}: {kind} = {default}"


def _described(argument: Argument) -> str:
    """A line of a docstring, or several."""
    # What is said of the program's option is said of what it means.
    sentence = ("false: " if argument.off else "") + argument.help[0].lower() + argument.help[1:]
    text = fill(
        f"{argument.name}: {sentence}",
        _WIDTH,
        initial_indent=" " * 12,
        subsequent_indent=" " * 16,
    )
    return text + "\n"


if __name__ == "__main__":
    TARGET.write_text(source(), "utf-8")
