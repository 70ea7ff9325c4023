"""What a new shardlord does about the commands that its predecessor left in progress.

Past the switch: they happened, so they are finished. Before it: all they made is undone, and they are
begun anew, so a crash delays a command and does not fail it.
"""

from __future__ import annotations

from typing import Any

import structlog

from shardman.lord.journal import BEHIND_S, Journal
from shardman.lord.runner import Runner

log = structlog.get_logger()

#: A command that outlives this many shardlords is the likely cause of their deaths.
MAX_ATTEMPTS = 10


async def recover(runner: Runner, journal: Journal) -> None:
    """Brings every command in progress to its end, or back to waiting."""
    await journal.copied(BEHIND_S)
    for command in await journal.unfinished():
        cmd_id = int(command["id"])
        log.info("recover", cmd=cmd_id, type=command["cmd_type"], switched=command["switched"])
        if command["switched"]:
            await _finish(runner, journal, cmd_id, int(command["attempt"]))
        else:
            await _take_back(runner, journal, command)


async def _finish(runner: Runner, journal: Journal, cmd_id: int, attempt: int) -> None:
    run = runner.new_run(cmd_id, attempt)
    try:
        for left in await runner.finish(run, await journal.to_finish(cmd_id, attempt)):
            run.say(left)
    finally:
        await run.close()
    run.say("Finished by another shardlord than the one that began it.")
    await journal.end(cmd_id, "success", None, " ".join(run.sentences))


async def _take_back(runner: Runner, journal: Journal, command: dict[str, Any]) -> None:
    cmd_id = int(command["id"])
    clean = await runner.undo(cmd_id)
    if command["cancel_requested"]:
        await journal.end(cmd_id, "canceled", None, None)
    elif command["parent"] is not None:
        await journal.end(
            cmd_id, "failed", "the shardlord died. The command it is a part of goes on.", None
        )
    elif not clean:
        await journal.end(
            cmd_id,
            "failed",
            "the shardlord died, and a node that took part cannot be reached. "
            "What is left there will be cleaned when it is back; then submit the command again.",
            None,
        )
    elif int(command["attempt"]) >= MAX_ATTEMPTS:
        await journal.end(
            cmd_id,
            "failed",
            f"{MAX_ATTEMPTS} shardlords died while they worked on it. See their logs.",
            None,
        )
    else:
        await journal.end(cmd_id, "waiting", None, None)
