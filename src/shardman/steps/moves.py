"""The steps that move many partitions, or make many replicas, each by a command of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shardman.commands.rebalance import Rebalance
from shardman.commands.set_replevel import SetReplevel
from shardman.model.placement import Measure, Move, ready
from shardman.steps.base import Run, step


@dataclass(frozen=True)
class Ended:
    """How one of the moves went."""

    move: Move
    status: str
    error: str | None


@step("run_moves")
@dataclass(frozen=True)
class RunMoves:
    """Spreads a table's partitions: several moves at once where they share no node. A move that fails
    does not stop the rest."""

    relation: str
    by: Measure = "number"

    async def do(self, run: Run) -> None:
        command = Rebalance(self.relation, self.by)
        ended = await _run_all(run, list(command.placement(await run.facts(command)).moves))
        failed = [e for e in ended if e.status != "success"]
        run.say(f"Moved {len(ended) - len(failed)} of {len(ended)} partitions.")
        for each in failed:
            run.say(
                f"{each.move.part_name} stays on node {each.move.src}: {each.error or each.status}"
            )

    async def undo(self, run: Run) -> None:
        """Each move is a command that takes itself back."""


async def _run_all(run: Run, todo: list[Move]) -> list[Ended]:
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
    opts: list[str | None] = [move.part_name, str(move.dest), str(move.src)]
    status, error = await run.child("move_part", opts)
    return Ended(move, status, error)


@step("run_replicas")
@dataclass(frozen=True)
class RunReplicas:
    """Makes and drops replicas until every partition of a table has as many as it is to have. They
    share channels, so one follows the other. One that fails does not stop the rest."""

    relation: str
    replevel: int

    async def do(self, run: Run) -> None:
        command = SetReplevel(self.relation, self.replevel)
        todo = command.changes(await run.facts(command))
        failed = []
        for n, change in enumerate(todo):
            await run.waits_for(f"replicas: {n} of {len(todo)} done")
            name = "create_replica" if change.add else "rm_replica"
            status, error = await run.child(name, [change.part_name, str(change.node)])
            if status != "success":
                failed.append(f"{change.part_name} on node {change.node}: {error or status}")
        await run.waits_for(None)
        made = sum(c.add for c in todo)
        run.say(f"Replicas to make: {made}, to drop: {len(todo) - made}, failed: {len(failed)}.")
        for each in failed:
            run.say(each)

    async def undo(self, run: Run) -> None:
        """Each change is a command that takes itself back."""
