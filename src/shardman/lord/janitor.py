"""Takes care of what ended commands could not finish or undo because a node was away."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from shardman.lord.journal import Journal, Recorded
from shardman.lord.runner import Runner

log = structlog.get_logger()


async def sweep(runner: Runner, journal: Journal, away: set[int]) -> None:
    """Tries everything that is left once, but for partitions that a command works on just now.

    Args:
        away: nodes that do not answer: they are not tried.
    """
    for left in await journal.leftovers():
        cmd_id, attempt = int(left["id"]), int(left["attempt"])
        finishing = bool(left["switched"])
        steps = await (journal.to_finish(cmd_id, attempt) if finishing else journal.to_undo(cmd_id))
        parts = parts_of(steps)
        if runner.turns.taken(parts):
            continue
        async with runner.turns.take(parts):
            if finishing:
                await _finish(runner, journal, cmd_id, attempt, away)
            else:
                await runner.undo(cmd_id, away)
            await journal.forget_secret(cmd_id)


def parts_of(steps: Iterable[Recorded]) -> set[str]:
    """The names under which `Runner.turns` knows the partitions of these steps."""
    found: set[str] = set()
    for step in steps:
        for key in ("part", "parts", "promoted", "replicas"):
            named = step.args.get(key) or ()
            found.update([named] if isinstance(named, str) else named)
    return {f"part {name}" for name in found}


async def _finish(
    runner: Runner, journal: Journal, cmd_id: int, attempt: int, away: set[int]
) -> None:
    run = runner.new_run(cmd_id, attempt, gone=set(away))
    try:
        await runner.finish(run, await journal.to_finish(cmd_id, attempt))
    finally:
        await run.close()
    for sentence in run.sentences:
        await journal.add_result(cmd_id, sentence)
