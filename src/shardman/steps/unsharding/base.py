"""What the steps have in common."""

from __future__ import annotations

from dataclasses import dataclass

from shardman import names
from shardman.model.plan import Json
from shardman.pg.connection import Connection
from shardman.steps.base import Run, Scope


@dataclass(frozen=True)
class OfSharded:
    """Of a step that works on a sharded table on the node where it becomes a plain one."""

    node: int
    relation: str

    def scope(self) -> Scope:
        return Scope.of([self.node])

    def shadow(self, run: Run) -> str:
        """The plain table before it has its name."""
        return names.shadow(self.relation, run.cmd_id)


@dataclass(frozen=True)
class OfDefined(OfSharded):
    """Of one that needs to know what the table is."""

    definition: dict[str, Json]


@dataclass(frozen=True)
class Part:
    """A partition's number, its name, and that of its data table."""

    k: int
    part: str
    data: str


async def parts_of(conn: Connection, relation: str) -> list[Part]:
    """The partitions of a table, in the order of their numbers."""
    cur = await conn.execute("select k, part, data from shardman.unshard_parts(%s)", (relation,))
    return [Part(*row) for row in await cur.fetchall()]
