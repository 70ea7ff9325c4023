"""Whether a node can take a copy: what is known before anything is made."""

from __future__ import annotations

from dataclasses import dataclass

from shardman import names
from shardman.errors import Code, Temporary, UserError
from shardman.pg import strangers
from shardman.steps.base import PartBetween, PrepareStep, Run, step
from shardman.steps.catalog import data_table, relation, value


@step("check_move")
@dataclass(frozen=True)
class CheckMove(PartBetween, PrepareStep):
    """What would make a move fail later, found before anything is made."""

    async def do(self, run: Run) -> None:
        await check_cleared(run, self.dest)
        await check_names(run, self.src, self.dest)
        source, dest = await run.node(self.src), await run.node(self.dest)
        name = await data_table(source, self.part)
        if await relation(source, name) is None:
            raise UserError(
                f"{name} is not on node {self.src}, where the metadata says it is",
                'See what "shardman check" says',
                code=Code.OBJECT_MISSING,
            )
        if await relation(dest, name) is not None:
            raise UserError(
                f"node {self.dest} has a table {name} already",
                "Rename it or drop it, if it is not needed",
                code=Code.NAME_TAKEN,
            )
        if taken := await value(source, "select shardman.route_taken(%s)", self.part):
            raise UserError(
                f"node {self.src} has {taken}, which is no route",
                "Rename it or drop it, if it is not needed: a route takes its place when the partition moves",
                code=Code.NAME_TAKEN,
            )
        if await relation(dest, self.part) is None:
            await dest.execute("select shardman.reconcile()")
        if await relation(dest, self.part) is None:
            raise UserError(
                f"node {self.dest} does not know {self.part} yet",
                "Wait until it has caught up with the metadata, see shardman.drift there",
                code=Code.NODE_BEHIND,
            )
        leftover = await value(
            source,
            "select string_agg(gid, ', ') from pg_prepared_xacts"
            " where prepared < now() - interval '1 minute'",
        )
        if leftover:
            raise UserError(
                f"node {self.src} has prepared transactions that hold replication up: {leftover}",
                "Commit or roll them back",
                code=Code.PREPARED_TRANSACTION,
            )


async def check_names(run: Run, *nodes: int) -> None:
    """Nothing on these nodes has the name of the command's copy channel. What is found later would be taken for
    the command's own, and dropped when that is undone.

    Raises:
        UserError: something has.
    """
    for node in nodes:
        name = names.copy_channel(run.cluster_id, run.cmd_id)
        await strangers.refuse_all(await run.node(node), node, name)


async def check_cleared(run: Run, node: int) -> None:
    """A node that was replaced takes no copy before it has cleared away what it had: until then its
    commits wait for replicas that come no more.

    Raises:
        Temporary: it has not.
    """
    if await value(await run.node(0), "select exists (select from shardman.returns_of(%s))", node):
        raise Temporary(
            f"node {node} has not set aside yet what other nodes have taken over",
            code=Code.NODE_RETURNING,
        )
