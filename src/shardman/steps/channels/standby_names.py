"""Steps on whom commits on a node wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardman import names
from shardman.pg import standby_names
from shardman.steps.base import FinishStep, Made, Run, Scope, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.state import StandbyIntent, State


@step("standby_names")
@dataclass(frozen=True)
class StandbyNames(UndoableStep):
    """Lets commits on a node wait for its synchronous replicas: those of the metadata, and the nodes
    whose replicas are about to become ones.

    Args:
        also: these nodes.
    """

    waits = "commits on that node, if one of the others is away"

    node: int
    also: list[int]

    def scope(self) -> Scope:
        return Scope.of([self.node])

    def makes(self) -> Made:
        return Made(f"standby names of node {self.node}")

    def state(self) -> Sequence[State]:
        return tuple(StandbyIntent(self.node, standby) for standby in self.also)

    async def do(self, run: Run) -> None:
        await _set_of_member(run, self.node, sure=bool(self.also))

    async def undo(self, run: Run) -> None:
        await _set_of_member(run, self.node, except_cmd=run.cmd_id, sure=bool(self.also))


@step("settle_standby_names")
@dataclass(frozen=True)
class SettleStandbyNames(FinishStep):
    """Lets commits on a node wait for the synchronous replicas that the metadata have now, no longer for
    others."""

    leaves = "standby names that are not needed any more"
    waits = "commits on that node, if one of these is away"

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        await _set_of_member(run, self.node)


async def _set_of_member(
    run: Run, node: int, except_cmd: int | None = None, *, sure: bool = False
) -> None:
    """As `set_standby_names`, unless the node was removed. One that has not been cleaned since may have old
    primaries in use, and is to wait for their replicas."""
    removed = "select worker_status = 'removed' from shardman.nodes where id = %s"
    if not await value(await run.node(0), removed, node):
        await set_standby_names(run, node, except_cmd, sure=sure)


async def set_standby_names(
    run: Run, node: int, except_cmd: int | None = None, *, sure: bool = False
) -> None:
    """Lets commits on a node wait for the synchronous replicas of the metadata, and for those that
    running commands are about to make.

    Args:
        except_cmd: a command that gives its own up.
        sure: waits until they do, also where nothing is to be changed.
    """
    async with run.named_lock(f"standby_names {node}"):
        wanted = await value(
            await run.node(0), "select shardman.synchronous_channels(%s, %s)", node, except_cmd
        )
        prefix = names.channels_of(run.cluster_id, node)
        await standby_names.set_replicas(await run.node(node), prefix, list(wanted), sure=sure)
