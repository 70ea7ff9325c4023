"""What the steps of a split have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from shardman.model.plan import Json
from shardman.pg.connection import Connection
from shardman.steps.base import Run, Scope
from shardman.tasks import all_of

Work = Callable[[int, Connection], Awaitable[None]]


@dataclass(frozen=True)
class OfSplit:
    """Of a step that works on all nodes with copies of a table.

    Args:
        former: how many partitions the table has.
        definition: of the table, with the number that it gets.
        copies: the nodes of the copies of each new partition, the primary's first.
    """

    relation: str
    former: int
    definition: dict[str, Json]
    copies: list[list[int]]

    def scope(self) -> Scope:
        return Scope.of(self.holders)

    @property
    def count(self) -> int:
        return len(self.copies)

    @property
    def holders(self) -> list[int]:
        """The nodes with copies."""
        return sorted({node for nodes in self.copies for node in nodes})

    @property
    def channels(self) -> dict[tuple[int, int], list[int]]:
        """The new partitions that go over the channel between two nodes."""
        found: dict[tuple[int, int], list[int]] = {}
        for k, (primary, *replicas) in enumerate(self.copies):
            for replica in replicas:
                found.setdefault((primary, replica), []).append(k)
        return found

    def ranks(self, node: int) -> list[int]:
        """The new partitions of which a node has copies."""
        return [k for k, nodes in enumerate(self.copies) if node in nodes]

    def olds(self, node: int) -> list[int]:
        """The old partitions that these come from."""
        step = min(self.former, self.count)
        own = {k % step for k in self.ranks(node)}
        return [j for j in range(self.former) if j % step in own]

    @property
    def referred(self) -> list[str]:
        """The shared tables that its foreign keys refer to."""
        keys: Any = self.definition.get("foreign_keys") or []
        return [str(key["to"]) for key in keys if "to_columns" not in key]

    @property
    def sizes(self) -> tuple[str, int, int]:
        """What most functions of a split begin with."""
        return self.relation, self.former, self.count

    @property
    def described(self) -> Jsonb:
        return Jsonb(self.definition)


async def on_each(run: Run, nodes: Iterable[int], work: Work) -> None:
    """Does the work on several nodes at the same time, in the command's sessions."""

    async def one(node: int) -> None:
        await work(node, await run.node(node))

    await all_of(*(one(node) for node in nodes))


async def rows(conn: Connection, query: str, *params: Any) -> list[Any]:
    """All rows of a query."""
    return list(await (await conn.execute(query.encode(), params)).fetchall())
