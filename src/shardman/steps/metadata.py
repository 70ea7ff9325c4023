"""Steps inside the switch: the only places where the truth about the cluster changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardman.errors import UserError
from shardman.steps.base import Connection, Run, step


@step("set_owner")
@dataclass(frozen=True)
class SetOwner:
    """A copy lives on another node from now on."""

    part: str
    src: int
    dest: int

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        cur = await conn.execute(
            "update shardman.partitions set owner = %s, stale_since = null where part_name = %s and owner = %s",
            (self.dest, self.part, self.src),
        )
        if cur.rowcount != 1:
            raise UserError(
                f"{self.part} is no longer on node {self.src}",
                "Look at shardman.partitions and try again",
            )
        # Its neighbours in the list of copies name it by its node.
        await conn.execute(
            "update shardman.partitions set prv = case when prv = %(src)s then %(dest)s else prv end,"
            " nxt = case when nxt = %(src)s then %(dest)s else nxt end"
            " where part_name = %(part)s and %(src)s in (prv, nxt)",
            {"part": self.part, "src": self.src, "dest": self.dest},
        )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("add_copy")
@dataclass(frozen=True)
class AddCopy:
    """A replica joins the end of a partition's list of copies."""

    part: str
    dest: int

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        cur = await conn.execute(
            "update shardman.partitions set nxt = %s where part_name = %s and nxt is null"
            " returning owner, relation",
            (self.dest, self.part),
        )
        row = await cur.fetchone()
        if row is None:
            raise UserError(f"there is no partition {self.part}", "See shardman.partitions")
        await conn.execute(
            "insert into shardman.partitions (part_name, owner, prv, relation)"
            " values (%s, %s, %s, %s)",
            (self.part, self.dest, *row),
        )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


async def unlink(conn: Connection, part: str, owner: int) -> bool:
    """Takes a replica out of its partition's list of copies; its neighbours become each other's.

    Returns:
        Whether there was one.
    """
    cur = await conn.execute(
        "delete from shardman.partitions where part_name = %s and owner = %s"
        " and prv is not null returning prv, nxt",
        (part, owner),
    )
    row = await cur.fetchone()
    if row is None:
        return False
    await conn.execute(
        "update shardman.partitions"
        " set nxt = case when owner = %(prv)s then %(nxt)s else nxt end,"
        " prv = case when owner = %(nxt)s then %(prv)s else prv end"
        " where part_name = %(part)s and owner in (%(prv)s, %(nxt)s)",
        {"part": part, "prv": row[0], "nxt": row[1]},
    )
    return True


@step("remove_copy")
@dataclass(frozen=True)
class RemoveCopy:
    """A replica leaves the list of copies; those before and behind it become neighbours."""

    part: str
    owner: int

    async def do(self, run: Run) -> None:
        if not await unlink(await run.node(0), self.part, self.owner):
            raise UserError(
                f"node {self.owner} has no replica of {self.part}", "See shardman.partitions"
            )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("set_level")
@dataclass(frozen=True)
class SetLevel:
    """Remembers how many replicas a table is to have."""

    relation: str
    replevel: int

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "update shardman.tables set replevel = %s where relation = %s",
            (self.replevel, self.relation),
        )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("set_sync")
@dataclass(frozen=True)
class SetSync:
    """Remembers whether commits wait for the replicas of a table."""

    relation: str
    sync: bool

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "update shardman.tables set sync = %s where relation = %s", (self.sync, self.relation)
        )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("set_zone")
@dataclass(frozen=True)
class SetZone:
    """Remembers what a node may fail together with."""

    node: int
    zone: str | None

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "update shardman.nodes set zone = %s where id = %s", (self.zone, self.node)
        )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("set_draining")
@dataclass(frozen=True)
class SetDraining:
    """Remembers whether anything new may be placed on a node."""

    node: int
    draining: bool

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "update shardman.nodes set draining = %s where id = %s", (self.draining, self.node)
        )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


async def reorder(conn: Connection, part: str, order: Sequence[int]) -> None:
    """The copies of a partition in a new order of succession, the primary first.

    Raises:
        UserError: they are not on these nodes.
    """
    # None is a primary for an instant, for two may never be.
    cur = await conn.execute(
        "update shardman.partitions set prv = owner, nxt = null where part_name = %s", (part,)
    )
    there = cur.rowcount
    cur = await conn.execute(
        "update shardman.partitions p set prv = o.prv, nxt = o.nxt"
        " from (select node, lag(node) over w as prv, lead(node) over w as nxt"
        " from unnest(%s::int[]) with ordinality as u (node, n) window w as (order by n)) as o"
        " where p.part_name = %s and p.owner = o.node",
        (list(order), part),
    )
    if {there, cur.rowcount} != {len(order)}:
        raise UserError(
            f"the copies of {part} have changed", "Look at shardman.partitions and try again"
        )


async def set_stale(conn: Connection, part: str, owner: int, *, stale: bool) -> None:
    """Remembers that a copy does not follow its primary any more, or that it does again."""
    await conn.execute(
        "update shardman.partitions set stale_since = case when %s then now() end"
        " where part_name = %s and owner = %s",
        (stale, part, owner),
    )


@step("set_order")
@dataclass(frozen=True)
class SetOrder:
    """The copies of a partition in a new order of succession, the primary first."""

    part: str
    order: list[int]

    async def do(self, run: Run) -> None:
        await reorder(await run.node(0), self.part, self.order)

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("leave_behind")
@dataclass(frozen=True)
class LeaveBehind:
    """Replicas on a node do not follow their primaries any more."""

    parts: list[str]
    node: int

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        for part in self.parts:
            await set_stale(conn, part, self.node, stale=True)

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("set_fresh")
@dataclass(frozen=True)
class SetFresh:
    """A copy that was stale follows its primary again."""

    part: str
    node: int

    async def do(self, run: Run) -> None:
        await set_stale(await run.node(0), self.part, self.node, stale=False)

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""
