"""Where copies are."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.steps.base import Run, Scope, SwitchStep, step


@step("set_owner")
@dataclass(frozen=True)
class SetOwner(SwitchStep):
    """A copy lives on another node from now on."""

    part: str
    src: int
    dest: int

    def scope(self) -> Scope:
        return Scope.of(parts=[self.part])

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
                code=Code.CHANGED_MEANWHILE,
            )
        # Its neighbours in the succession name it by its node.
        await conn.execute(
            "update shardman.partitions set prv = case when prv = %(src)s then %(dest)s else prv end,"
            " nxt = case when nxt = %(src)s then %(dest)s else nxt end"
            " where part_name = %(part)s and %(src)s in (prv, nxt)",
            {"part": self.part, "src": self.src, "dest": self.dest},
        )


@step("add_copy")
@dataclass(frozen=True)
class AddCopy(SwitchStep):
    """A replica joins the end of a partition's succession."""

    part: str
    dest: int

    def scope(self) -> Scope:
        return Scope.of(parts=[self.part])

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        cur = await conn.execute(
            "update shardman.partitions set nxt = %s where part_name = %s and nxt is null"
            " returning owner, relation",
            (self.dest, self.part),
        )
        row = await cur.fetchone()
        if row is None:
            raise UserError(
                f"there is no partition {self.part}",
                "See shardman.partitions",
                code=Code.NO_SUCH_PARTITION,
            )
        await conn.execute(
            "insert into shardman.partitions (part_name, owner, prv, relation)"
            " values (%s, %s, %s, %s)",
            (self.part, self.dest, *row),
        )


async def unlink(conn: Connection, part: str, owner: int) -> bool:
    """Takes a replica out of its partition's succession; its neighbours become each other's.

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
class RemoveCopy(SwitchStep):
    """A replica leaves the succession; those before and behind it become neighbours."""

    part: str
    owner: int

    def scope(self) -> Scope:
        return Scope.of(parts=[self.part])

    async def do(self, run: Run) -> None:
        if not await unlink(await run.node(0), self.part, self.owner):
            raise UserError(
                f"node {self.owner} has no replica of {self.part}",
                "See shardman.partitions",
                code=Code.NO_SUCH_COPY,
            )
