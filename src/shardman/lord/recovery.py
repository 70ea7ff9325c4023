"""What a new shardlord does about the commands that its predecessor left in progress.

Past the switch: they happened, so they are finished. Before it: all they made is undone, and they are
begun anew, so a crash delays a command and does not fail it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from shardman.errors import Code, UserError
from shardman.lord.entry import Entry
from shardman.lord.failures import Failure, failure
from shardman.lord.finisher import finish, undo
from shardman.lord.journal import BEHIND_S, Journal
from shardman.lord.run import CommandRun
from shardman.lord.runner import Runner

log = structlog.get_logger()

#: A command that outlives this many shardlords is the likely cause of their deaths.
MAX_ATTEMPTS = 10
#: How long one command may keep the others waiting, in seconds.
LONGEST_S = 10.0


async def recover(runner: Runner, journal: Journal) -> None:
    """Brings every command in progress to its end, or back to waiting."""
    await journal.copied(BEHIND_S)
    for command in await journal.unfinished():
        entry = Entry(journal, int(command["id"]), int(command["attempt"]))
        log.info(
            "recover", cmd=entry.cmd_id, type=command["cmd_type"], switched=command["switched"]
        )
        if command["switched"]:
            await _finish(_run(runner, entry))
        else:
            run = _run(runner, entry, away=set())
            run.again = _begins_anew(command, entry)
            clean = await undo(run)
            await entry.end(*_taken_back(command, entry, clean=clean))


def _run(runner: Runner, entry: Entry, away: set[int] | None = None) -> CommandRun:
    """Nothing else is begun meanwhile, not even a failover: what takes long is left to the janitor."""
    run = runner.run_of(entry, away=away)
    asyncio.get_running_loop().call_later(LONGEST_S, run.hurry.press, 0.0)
    return run


async def _finish(run: CommandRun) -> None:
    try:
        run.tell_left(await finish(run, await run.entry.to_finish()))
    finally:
        await run.close()
    run.say("Finished by another shardlord than the one that began it.")
    run.figures.recovered = True
    await run.entry.end("success", None, " ".join(run.sentences), run.figures.data())


def _begins_anew(command: Mapping[str, Any], entry: Entry) -> bool:
    """Whether a command that had not switched is tried once more, if all of it can be undone."""
    return not command["canceled_by"] and command["parent"] is None and entry.attempt < MAX_ATTEMPTS


def _taken_back(
    command: Mapping[str, Any], entry: Entry, *, clean: bool
) -> tuple[str, Failure | None]:
    """Status and failure of a command that had not switched.

    Args:
        clean: nothing remains of it.
    """
    if command["canceled_by"]:
        return "canceled", None
    if command["parent"] is not None:
        return "failed", _died("The command it is a part of goes on")
    if not clean:
        return "failed", _died(
            "What is left there will be cleaned when it is back; then submit the command again",
            "the shardlord died, and a node that took part cannot be reached",
        )
    if entry.attempt >= MAX_ATTEMPTS:
        return "failed", _died(
            "See their logs", f"{MAX_ATTEMPTS} shardlords died while they worked on it"
        )
    return "waiting", None


def _died(hint: str, what: str = "the shardlord died") -> Failure:
    return failure(UserError(what, hint, code=Code.SHARDLORD_DIED))
