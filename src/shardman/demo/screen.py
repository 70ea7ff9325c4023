"""How the demo looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

_WIDTH = 100
_INDENT = (0, 0, 0, 3)
# One colour a partition, so that the eye follows it from node to node.
_COLOURS = (
    "cyan", "magenta", "yellow", "green", "blue", "red",
    "bright_cyan", "bright_magenta", "bright_yellow", "bright_green", "bright_blue", "bright_red",
)  # fmt: skip

Say = Callable[[str], None]


@dataclass(frozen=True)
class Holding:
    """What one worker holds: numbers of partitions, rows, bytes."""

    parts: Sequence[int]
    rows: int
    bytes: int


class _Ticking:
    """Words and for how long they have been there; drawn anew at every turn of the spinner."""

    def __init__(self, words: str) -> None:
        self._words = words
        self._begun = time.monotonic()

    def say(self, words: str) -> None:
        self._words = words

    def __rich__(self) -> Text:
        seconds = f"{time.monotonic() - self._begun:.0f} s"
        # On one line: what has wrapped cannot be wiped off again.
        return Text.assemble(
            (f"{seconds:>4} ", "dim"), self._words, no_wrap=True, overflow="ellipsis"
        )


class Screen:
    """Chapters, SQL as it is sent, and what came of it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if self.console.width > _WIDTH or not self.console.is_terminal:
            self.console.width = _WIDTH
        self._chapter = 0

    def title(self, words: str, below: str) -> None:
        """The first thing seen."""
        text = Text.assemble((words, "bold"), "\n", (below, "dim"))
        self.console.print(Panel(text, box=ROUNDED, border_style="cyan", padding=(0, 2)))

    def chapter(self, title: str, words: str = "") -> None:
        """A new part of the story."""
        self._chapter += 1
        self.console.print()
        self.console.print(Text(f"{self._chapter}  {title}", style="bold cyan"))
        if words:
            self._print(Text(words, style="dim"))

    def sql(self, node: str, statement: str) -> None:
        """A statement and the node that it is sent to."""
        line = Table.grid(padding=(0, 1))
        code = Syntax(statement, "postgresql", theme="ansi_dark", background_color="default")
        line.add_row(Text(f"{node} ▸", style="bold"), code)
        self._print(line)

    def ok(self, words: str) -> None:
        """Something went well."""
        self._print(Text.assemble(("✓ ", "bold green"), words))

    def bad(self, words: str) -> None:
        """Something did not."""
        self._print(Text.assemble(("✗ ", "bold red"), (words, "red")))

    def verdict(self, good: bool, words: str) -> None:
        """One or the other."""
        (self.ok if good else self.bad)(words)

    def plain(self, words: str) -> None:
        """Just words."""
        self._print(Text(words))

    def copyable(self, words: str) -> None:
        """A line to be copied from the terminal: never folded by us."""
        self.console.print(Text(f"   {words}"), soft_wrap=True)

    @contextmanager
    def working(self, words: str) -> Iterator[Say]:
        """Something takes a while: a spinner with the time, on a terminal; silence elsewhere."""
        if not self.console.is_terminal:
            yield lambda _: None
            return
        line = _Ticking(words)
        with self.console.status(line, spinner="dots"):
            yield line.say

    def placement(self, holdings: Mapping[int, Holding]) -> None:
        """Where partitions lie."""
        grid = Table.grid(padding=(0, 2))
        for node, held in sorted(holdings.items()):
            grid.add_row(
                Text(f"worker {node}", style="bold"),
                self._chips(held.parts),
                Text(f"{held.rows:>7,} rows", justify="right"),
                Text(f"{held.bytes / 1024 / 1024:>5.1f} MB", style="dim"),
            )
        self.console.print()
        self._print(grid)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
        """Columns after the first ``left`` are numbers."""
        made = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
        for n, name in enumerate(columns):
            made.add_column(name, justify="left" if n < left else "right", overflow="fold")
        for row in rows:
            made.add_row(*row)
        self._print(made)

    def end(self, good: bool, words: str, below: Sequence[tuple[str, str]], hint: str) -> None:
        """The last thing seen: the result, and commands to try with what they are for."""
        grid = Table.grid(padding=(0, 2))
        for command, purpose in below:
            grid.add_row(Text(command, style="bold", overflow="fold"), Text(purpose, style="dim"))
        head = Text(words, style="bold green" if good else "bold red")
        body = Table.grid()
        for part in (head, Text(hint), grid):
            body.add_row(part)
        self.console.print()
        self.console.print(
            Panel(body, box=ROUNDED, border_style="green" if good else "red", padding=(0, 2))
        )

    def _chips(self, parts: Sequence[int]) -> Text:
        text = Text()
        for k in parts:
            style = f"bold black on {_COLOURS[k % len(_COLOURS)]}"
            text.append(f" {k:>2} ", style=style if self.console.is_terminal else "")
            text.append(" ")
        return text

    def _print(self, what: RenderableType) -> None:
        self.console.print(Padding(what, _INDENT, expand=False))
