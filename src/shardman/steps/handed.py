"""What a step hands to a later one of the same attempt. None of it survives a crash: recovery needs nothing
but the journal and what it finds on the nodes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardman.model.plan import Json


@dataclass
class CutOverTimes:
    """How long clients of a partition were held, by the monotonic clock, in seconds.

    Args:
        begun: when the try that succeeded asked for its first lock.
        ended: when the last node was released.
        tries: how many there were.
    """

    begun: float | None = None
    ended: float | None = None
    tries: int = 0

    def begin(self) -> None:
        """A try begins."""
        self.begun = time.monotonic()
        self.tries += 1

    def end(self) -> None:
        """A node was released."""
        self.ended = time.monotonic()

    @property
    def ms(self) -> float | None:
        """Milliseconds from the first lock to the last release; None: not known."""
        if self.begun is None or self.ended is None:
            return None
        return (self.ended - self.begun) * 1000


@dataclass
class Figures:
    """What a command has measured.

    Args:
        rows: compared in both copies, or copied.
        bytes: copied, as COPY carries them.
        moved: parts of the command that succeeded.
        failed: parts of the command that did not.
        set_aside: tables with data that were set aside, not dropped: `node_id` and `table`.
        left: how many steps wait until a node is back.
        recovered: another shardlord than the one that began the command has finished it, so what was measured
            behind the switch is not known.
        planned: what was known when it was planned.
    """

    cut_over: CutOverTimes = field(default_factory=CutOverTimes)
    rows: int | None = None
    bytes: int | None = None
    moved: int | None = None
    failed: int | None = None
    set_aside: list[Json] = field(default_factory=list)
    left: int | None = None
    recovered: bool = False
    planned: Mapping[str, Json] = field(default_factory=dict)

    def keep(self, node: int, tables: Iterable[str]) -> None:
        """Tables that were set aside on a node."""
        self.set_aside += [{"node_id": node, "table": table} for table in tables]

    def data(self) -> dict[str, Json]:
        """What is known, as JSON; docs/commands/README.md has the names."""
        ms = self.cut_over.ms
        found: dict[str, Json] = {
            **self.planned,
            "cut_over_ms": None if ms is None else round(ms, 1),
            "tries": self.cut_over.tries or None,
            "rows": self.rows,
            "bytes": self.bytes,
            "moved": self.moved,
            "failed": self.failed,
            "set_aside": list(self.set_aside) or None,
            "left": self.left,
            "recovered": self.recovered or None,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class NewServer:
    """How a server that is about to become a node is reached, and who it is.

    Args:
        options: resolved libpq parameters, without secrets.
        password: never to be logged.
    """

    options: dict[str, str]
    password: str | None
    system_id: str


@dataclass(frozen=True)
class CopyEnd:
    """When the rows of a conversion were in their partitions: whoever has an older snapshot misses them.

    Args:
        at: by the node's clock.
        xid: transactions from this one on began later.
    """

    at: Any
    xid: str


@dataclass
class Handed:
    """What one step leaves for another.

    Args:
        split: by `split_copy`, by node.
        server: by `check_node`.
        copied: by `conversion_copy`.
        fresh_routes: by `conversion_shadow`: routes on the table's node lead over servers of their own.
    """

    split: dict[int, CopyEnd] = field(default_factory=dict)
    server: NewServer | None = None
    copied: CopyEnd | None = None
    fresh_routes: bool = False
