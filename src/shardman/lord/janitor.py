"""Takes care of what ended commands could not finish or undo because a node was away."""

from __future__ import annotations

import structlog

from shardman.lord.journal import Journal
from shardman.lord.runner import Runner

log = structlog.get_logger()


async def sweep(runner: Runner, journal: Journal) -> bool:
    """Tries everything that is left once.

    Returns:
        Whether nothing remains.
    """
    clean = True
    for left in await journal.leftovers():
        cmd_id, attempt = int(left["id"]), int(left["attempt"])
        if left["switched"]:
            clean &= await _finish(runner, journal, cmd_id, attempt)
        else:
            clean &= await runner.undo(cmd_id)
        await journal.forget_secret(cmd_id)
    return clean


async def _finish(runner: Runner, journal: Journal, cmd_id: int, attempt: int) -> bool:
    run = runner.new_run(cmd_id, attempt)
    try:
        left = await runner.finish(run, await journal.to_finish(cmd_id, attempt))
    finally:
        await run.close()
    for sentence in run.sentences:
        await journal.add_result(cmd_id, sentence)
    return not left
