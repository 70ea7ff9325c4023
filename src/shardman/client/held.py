"""What is said to a transaction as a text and holds on all of its nodes: SAVEPOINT, SET CONSTRAINTS, SET LOCAL.

A node that is taken in later is told the same, in the same order, before its first statement. So it can be
rolled back to a savepoint that is older than its part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any


class Act(Enum):
    """What a statement does to what holds."""

    SAVEPOINT = auto()
    RELEASE = auto()
    ROLLBACK_TO = auto()
    SET = auto()


@dataclass(frozen=True)
class Said:
    """One of these statements; ``name``: of the savepoint."""

    act: Act
    name: str = ""


@dataclass(frozen=True)
class _Entry:
    said: Said
    text: Any
    depth: int


@dataclass
class Held:
    """Of the transaction that is open."""

    _entries: list[_Entry] = field(default_factory=list)
    #: How much had been said when a node was taken in; nothing where that is not in it.
    _joined: dict[str, int] = field(default_factory=dict)

    def join(self, node: str) -> None:
        """A node is taken in, and told all of it."""
        self._joined[node] = len(self._entries)

    def joined_after(self, name: str) -> set[str]:
        """The nodes that were taken in after a savepoint: nothing of them is older."""
        at = self._index(name)
        return set() if at is None else {n for n, count in self._joined.items() if count > at}

    def forget(self, node: str) -> None:
        """A node has left the transaction."""
        self._joined.pop(node, None)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def knows(self, said: Said) -> bool:
        """Whether it is a statement about a savepoint that was made here, or none about an older one."""
        return said.act in (Act.SAVEPOINT, Act.SET) or self._index(said.name) is not None

    def note(self, said: Said, text: Any, depth: int) -> None:
        """After it was said to all nodes.

        Args:
            depth: how many `transaction()` are open.
        """
        if said.act in (Act.SAVEPOINT, Act.SET):
            self._entries.append(_Entry(said, text, depth))
            return
        at = self._index(said.name)
        if at is None:
            return
        if said.act is Act.ROLLBACK_TO:
            del self._entries[at + 1 :]
            self._bound(at + 1)
        else:
            self._entries[at:] = [e for e in self._entries[at:] if e.said.act is Act.SET]
            self._bound(at)

    def texts(self, depth: int) -> Iterator[Any]:
        """What was said at a depth, in its order."""
        return (e.text for e in list(self._entries) if e.depth == depth)

    def leave(self, depth: int, *, kept: bool) -> None:
        """A `transaction()` has ended; ``kept``: not rolled back, so what was set in it goes on."""
        self._entries = [
            replace(e, depth=min(e.depth, depth))
            for e in self._entries
            if e.depth <= depth or (kept and e.said.act is Act.SET)
        ]
        self._bound(len(self._entries))

    def _bound(self, most: int) -> None:
        self._joined = {n: min(count, most) for n, count in self._joined.items()}

    def clear(self) -> None:
        """The transaction has ended."""
        self._entries.clear()
        self._joined.clear()

    def _index(self, name: str) -> int | None:
        for at in range(len(self._entries) - 1, -1, -1):
            said = self._entries[at].said
            if said.act is Act.SAVEPOINT and said.name == name:
                return at
        return None
