"""Takes care of what ended commands could not finish or undo because a node was away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

import structlog

from shardman.lord.entry import Entry, Recorded
from shardman.lord.finisher import finish, undo
from shardman.lord.journal import Journal
from shardman.lord.runner import MEMBERSHIP, Runner
from shardman.model.plan import Phase
from shardman.steps.base import FinishStep, StepKind, bind

log = structlog.get_logger()


#: What was tried in vain a moment ago keeps no command waiting.
AGAIN_S = 10.0
#: What cannot be done though its nodes answer is tried again after the first pause, then after twice that,
#: up to the last, in seconds.
PAUSES_S = (1.0, 60.0)


class Janitor:
    """Tries what is left.

    Args:
        away: nodes that do not answer: they are not tried.
    """

    def __init__(self, runner: Runner, journal: Journal, away: Callable[[], set[int]]) -> None:
        self._runner = runner
        self._journal = journal
        self._away = away
        #: Commands of which something is being tried.
        self._busy: set[int] = set()
        #: When a command was tried last, by the monotonic clock.
        self._tried: dict[int, float] = {}
        #: How long it rests between two tries.
        self._pauses: dict[int, float] = {}
        self._were_away: set[int] = set()

    async def sweep(self, *, only_new: bool = False) -> int:
        """Tries everything once, but for partitions that a command works on just now.

        Args:
            only_new: not what was tried within the last seconds.

        Returns:
            Of how many commands something was left.
        """
        self._look_who_is_back()
        found = await self._journal.leftovers()
        for left in found:
            entry = Entry(self._journal, int(left["id"]), int(left["attempt"]))
            cmd_id = entry.cmd_id
            if cmd_id in self._busy or not self._due(cmd_id, only_new=only_new):
                continue
            self._busy.add(cmd_id)
            try:
                await (self._finish(entry) if left["switched"] else self._undo(entry))
            finally:
                self._busy.discard(cmd_id)
                self._tried[cmd_id] = time.monotonic()
        self._forget({int(left["id"]) for left in found})
        return len(found)

    def _due(self, cmd_id: int, *, only_new: bool) -> bool:
        pause = self._pauses.get(cmd_id, 0.0)
        since = time.monotonic() - self._tried.get(cmd_id, -math.inf)
        return since >= max(pause, AGAIN_S if only_new else 0.0)

    def _stuck(self, cmd_id: int) -> None:
        """Something of it could not be done, though no node was found away."""
        first, last = PAUSES_S
        self._pauses[cmd_id] = min(last, 2 * self._pauses.get(cmd_id, first / 2))

    def _look_who_is_back(self) -> None:
        """Whatever rests may have waited for a node that answers now."""
        if (away := self._away()) != self._were_away:
            self._were_away = away
            self._pauses.clear()

    def _forget(self, found: set[int]) -> None:
        for known in (self._tried, self._pauses):
            for cmd_id in known.keys() - found:
                del known[cmd_id]

    async def _finish(self, entry: Entry) -> None:
        locks = self._runner.named_locks
        steps = await entry.to_finish()
        parts = _parts("finish", steps)
        if locks.taken(parts):
            steps = [step for step in steps if _unclaimed(step)]
            parts = set()
        if not steps:
            return
        async with locks.take(parts):
            run = self._runner.run_of(entry, away=set(self._away()))
            try:
                before = set(run.away)
                if await finish(run, steps) and before == self._away():
                    self._stuck(entry.cmd_id)
            finally:
                await run.close()
            for sentence in run.sentences:
                await entry.add_result(sentence)
            if run.figures.set_aside:
                await entry.add_set_aside(run.figures.set_aside)
            await entry.forget_secret()

    async def _undo(self, entry: Entry) -> None:
        locks = self._runner.named_locks
        steps = await entry.to_undo()
        # What has no partition may be a node's schema, which a later command may be making anew just now.
        parts = _parts("prepare", steps) or {MEMBERSHIP}
        if steps and not locks.taken(parts):
            async with locks.take(parts):
                before = self._away()
                clean = await undo(self._runner.run_of(entry, away=set(before)))
                if not clean and before == self._away():
                    self._stuck(entry.cmd_id)
                await entry.forget_secret()


def _parts(phase: Phase, steps: Iterable[Recorded]) -> set[str]:
    """The names under which `Runner.named_locks` knows the partitions of these steps."""
    return {f"part {p}" for step in steps if (b := _bound(phase, step)) for p in b.scope().parts}


def _unclaimed(step: Recorded) -> bool:
    bound = _bound("finish", step)
    return isinstance(bound, FinishStep) and bound.unclaimed


def _bound(phase: Phase, step: Recorded) -> StepKind | None:
    """None: this version cannot read it. Whoever runs it then says so in the journal."""
    try:
        return bind(phase, step)
    except (KeyError, TypeError):
        return None
