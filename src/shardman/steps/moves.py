"""The steps that move many partitions, or make many replicas, each by a command of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardman.commands.base import Command
from shardman.commands.create_replica import CreateReplica
from shardman.commands.drain_node import DrainNode
from shardman.commands.move_part import MovePart
from shardman.commands.rebalance import Rebalance
from shardman.commands.rm_replica import RmReplica
from shardman.commands.set_replevel import SetReplevel
from shardman.commands.switch_primary import SwitchPrimary
from shardman.commands.takeover import counted
from shardman.model.placement import Kind, Measure, Move, ready
from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.metadata.attributes import set_draining


@dataclass(frozen=True)
class Ended:
    """How one of the moves went."""

    move: Move
    status: str
    error: str | None

    @property
    def failed(self) -> bool:
        return self.status != "success"


#: The command that does each kind of move.
_VERBS: dict[Kind, Callable[[Move], Command]] = {
    "move": lambda m: MovePart(m.part_name, m.dest, m.src),
    "switch": lambda m: SwitchPrimary(m.part_name, m.dest),
    "drop": lambda m: RmReplica(m.part_name, m.src),
}


@step("run_moves")
@dataclass(frozen=True)
class RunMoves(FinishStep):
    """Spreads a table's partitions: several moves at once where they share no node. A move that fails
    does not stop the rest."""

    relation: str
    by: Measure = "number"

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        command = Rebalance(self.relation, self.by)
        facts = await run.facts(command)
        # With thousands of partitions it takes seconds, in which the lease must be kept.
        placement = await asyncio.to_thread(command.placement, facts)
        ended = await run_moves(run, list(placement.moves))
        _tell(run, ended)


@step("begin_draining")
@dataclass(frozen=True)
class BeginDraining(FinishStep):
    """Nothing new is placed on a node from now on. It stands behind no switch: what follows are commands of
    their own, and what they have moved stays moved."""

    node: int

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        await set_draining(await run.node(0), self.node, draining=True)


@step("run_drain")
@dataclass(frozen=True)
class RunDrain(FinishStep):
    """Moves every copy off a node, as `RunMoves`."""

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        command = DrainNode(self.node)
        facts = await run.facts(command)
        ended = await run_moves(run, command.moves(facts))
        _tell(run, ended)
        dropped = [e.move.part_name for e in ended if e.move.kind == "drop" and not e.failed]
        if dropped:
            run.say(f"Replicas for which no other node is left: {counted(dropped)}.")
        stay = sorted(
            {c.part_name for c in (await run.facts(command)).cluster.copies_on(self.node)}
            - {p for e in ended if e.failed for p in facts.cluster.rank(e.move.part_name)}
        )
        if stay:
            run.say(f"No other node can have {counted(stay)}.")


def _tell(run: Run, ended: Sequence[Ended]) -> None:
    """How the moves went, for the command's result."""
    moved = [e for e in ended if e.move.kind == "move"]
    primaries = [e for e in moved if e.move.via is None]
    replicas = [e for e in moved if e.move.via is not None]
    switched = [e for e in ended if e.move.kind == "switch"]
    run.figures.moved = sum(not e.failed for e in ended)
    run.figures.failed = sum(e.failed for e in ended)
    run.say(
        f"Moved {_of(primaries)} partitions"
        + (f" and {_of(replicas)} replicas" if replicas else "")
        + (f", let {_of(switched)} change places with a replica" if switched else "")
        + "."
    )
    for each in (e for e in ended if e.failed):
        run.say(f"{each.move.part_name} stays on node {each.move.src}: {each.error or each.status}")


def _of(ended: Sequence[Ended]) -> str:
    return f"{sum(not e.failed for e in ended)} of {len(ended)}"


async def run_moves(run: Run, todo: list[Move]) -> list[Ended]:
    """Runs moves as commands, several at once where they share no node; how each has ended."""
    running: dict[asyncio.Task[Ended], Move] = {}
    ended: list[Ended] = []
    total = len(todo)
    try:
        while todo or running:
            for move in ready(todo, running.values()):
                todo.remove(move)
                running[asyncio.create_task(_one(run, move))] = move
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del running[task]
                ended.append(task.result())
            await run.waits_for(f"moves: {len(ended)} of {total} done" if todo or running else None)
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
    return ended


async def _one(run: Run, move: Move) -> Ended:
    status, error = await run.child(_VERBS[move.kind](move))
    return Ended(move, status, error)


@step("set_level")
@dataclass(frozen=True)
class SetLevel(FinishStep):
    """Remembers how many replicas a table, and those that are colocated with it, are to have."""

    relation: str
    replevel: int

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        # Of all that are colocated with it: their replicas lie together.
        await conn.execute(
            "update shardman.tables t set replevel = %s from shardman.tables o"
            " where o.relation = %s and (t.relation = o.relation or t.colocation = o.colocation)",
            (self.replevel, self.relation),
        )


@step("run_replicas")
@dataclass(frozen=True)
class RunReplicas(FinishStep):
    """Makes and drops replicas until every partition of a table has as many as it is to have. They
    share channels, so one follows the other. One that fails does not stop the rest."""

    relation: str
    replevel: int

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        command = SetReplevel(self.relation, self.replevel)
        todo = command.changes(await run.facts(command))
        failed = []
        for n, change in enumerate(todo):
            await run.waits_for(f"replicas: {n} of {len(todo)} done")
            verb = CreateReplica if change.add else RmReplica
            status, error = await run.child(verb(change.part_name, change.node))
            if status != "success":
                failed.append(f"{change.part_name} on node {change.node}: {error or status}")
        await run.waits_for(None)
        run.figures.moved, run.figures.failed = len(todo) - len(failed), len(failed)
        made = sum(c.add for c in todo)
        run.say(f"Replicas to make: {made}, to drop: {len(todo) - made}, failed: {len(failed)}.")
        for each in failed:
            run.say(each)
