"""Does what stands behind a switch, and takes back what stands before one."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from shardman.errors import Refused, RemovedNodeAway
from shardman.lord.entry import Recorded
from shardman.lord.failures import sentence
from shardman.lord.journal import LordLost
from shardman.lord.run import CommandRun
from shardman.steps.base import NOBODY, FinishStep, UndoableStep, bind

log = structlog.get_logger()

#: These end the leadership: the journal is gone or is no longer ours. They undo nothing; the next one does.
LEADERSHIP_OVER = (LordLost, Refused)
GIVEN_UP = "the node was removed"


class Finisher:
    """Runs finish steps; those behind one that failed on a node wait with it for the janitor. Those that
    run at the same time are under way already.

    Args:
        atomic: they stand behind a switch.
    """

    def __init__(self, run: CommandRun, *, atomic: bool = True) -> None:
        #: What waits, in sentences.
        self.left: list[str] = []
        self._run = run
        self._atomic = atomic
        self._entry = run.entry
        self._away = set(run.away)

    async def do(self, step: Recorded) -> None:
        """Does a step, or leaves it.

        Raises:
            LordLost, Refused: the leadership is over.
        """
        needed: frozenset[int] = frozenset()
        try:
            bound = bind("finish", step)
            needed = bound.needs()
            if self._atomic and self._run.hurry.pressed:
                self.left.append(f"Left for later: {step.title} (something urgent came next)")
                return
            if needed & self._away:
                await self._skip(step, bound, needed & self._run.away)
                return
            await self._entry.start_step(step, durable=False)
            await self._bounded(bound)
        except LEADERSHIP_OVER:
            raise
        except RemovedNodeAway as gone:
            await self._entry.end_step(step, "done", str(gone))
        except Exception as error:  # noqa: BLE001  (one step must not stop the others)
            reason = sentence(error)
            log.warning("finish later", cmd=self._entry.cmd_id, step=step.title, error=reason)
            await self._entry.end_step(step, "started", reason)
            self.left.append(f"Left for later: {step.title} ({reason})")
            self._away |= needed
        else:
            await self._entry.end_step(step, "done")

    async def _bounded(self, step: FinishStep) -> None:
        if self._atomic:
            waited_for = step.waits != NOBODY
            await self._run.hurry.bounded(step.do(self._run), waited_for=waited_for)
        else:
            # A part of a command without a switch is a command, which ends by itself.
            await step.do(self._run)

    async def _skip(self, step: Recorded, bound: FinishStep, away: frozenset[int]) -> None:
        if not bound.for_removed and await self._run.any_removed(away):
            await self._entry.end_step(step, "done", GIVEN_UP)
        elif away:
            self.left.append(f"Left for later: {step.title} (it does not answer)")


async def finish(run: CommandRun, steps: Iterable[Recorded]) -> list[str]:
    """Runs finish steps that the journal has, one after the other; returns what was left for later."""
    finisher = Finisher(run)
    for step in steps:
        await finisher.do(step)
    return finisher.left


async def undo(run: CommandRun) -> bool:
    """Undoes all that the command has begun, the newest first. Whatever a step had open is closed behind it:
    that frees locks and sessions.

    Returns:
        Whether nothing remains. What fails stays in the journal for the janitor.
    """
    clean = True
    for step in await run.entry.to_undo():
        try:
            bound = bind("prepare", step)
            if isinstance(bound, UndoableStep):
                await run.hurry.bounded(bound.undo(run))
        except LEADERSHIP_OVER:
            raise
        except RemovedNodeAway as gone:
            await run.entry.end_step(step, "undone", str(gone))
        except Exception as error:  # noqa: BLE001  (one step must not stop the others)
            clean = False
            reason = sentence(error)
            log.warning("undo later", cmd=run.entry.cmd_id, step=step.title, error=reason)
            await run.entry.end_step(step, "started", reason)
        else:
            await run.entry.end_step(step, "undone")
        finally:
            await run.close()
    return clean
