"""What is remembered of tables and nodes."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql
from psycopg.types.json import Jsonb

from shardman.model.plan import Json
from shardman.pg.connection import Connection
from shardman.steps.base import Run, Scope, SwitchStep, step


@step("set_sync")
@dataclass(frozen=True)
class SetSync(SwitchStep):
    """Remembers whether commits wait for the replicas of a table."""

    relation: str
    sync: bool

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "update shardman.tables set sync = %s where relation = %s", (self.sync, self.relation)
        )


@step("redefine_table")
@dataclass(frozen=True)
class RedefineTable(SwitchStep):
    """A table is from now on what it was found to be."""

    relation: str
    definition: dict[str, Json]
    create_sql: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "update shardman.tables set definition = shardman.named_as_now(%s), expr = %s, create_sql = %s"
            " where relation = %s",
            (
                Jsonb(self.definition),
                self.definition["expr"],
                self.create_sql,
                self.relation,
            ),
        )


@step("forget_table")
@dataclass(frozen=True)
class ForgetTable(SwitchStep):
    """A table is sharded no longer, nor anything else."""

    relation: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        for table in ("partitions", "tables"):
            await conn.execute(
                sql.SQL("delete from shardman.{} where relation = %s").format(
                    sql.Identifier(table)
                ),
                (self.relation,),
            )


@step("set_zone")
@dataclass(frozen=True)
class SetZone(SwitchStep):
    """Remembers what a node may fail together with."""

    node: int
    zone: str | None

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "update shardman.nodes set zone = %s where id = %s", (self.zone, self.node)
        )


@step("end_draining")
@dataclass(frozen=True)
class EndDraining(SwitchStep):
    """A node may have something new placed on it again."""

    node: int

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        await set_draining(await run.node(0), self.node, draining=False)


@step("begin_maintenance")
@dataclass(frozen=True)
class BeginMaintenance(SwitchStep):
    """A node may be away for some time. From here on none of its replicas is promoted."""

    node: int
    seconds: int

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "update shardman.nodes set away_until = clock_timestamp() + make_interval(secs => %s)"
            " where id = %s",
            (self.seconds, self.node),
        )


@step("end_maintenance")
@dataclass(frozen=True)
class EndMaintenance(SwitchStep):
    """A node is back, and its replicas have all that was acknowledged."""

    node: int

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "update shardman.nodes set away_until = null where id = %s", (self.node,)
        )


async def set_draining(conn: Connection, node: int, *, draining: bool) -> None:
    """Remembers whether nothing new may be placed on a node."""
    await conn.execute("update shardman.nodes set draining = %s where id = %s", (draining, node))
