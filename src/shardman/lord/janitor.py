"""Takes care of what ended commands could not finish or undo because a node was away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import structlog

from shardman.lord.journal import Journal, Recorded
from shardman.lord.run import CommandRun
from shardman.lord.runner import Runner

log = structlog.get_logger()


#: What was tried in vain a moment ago keeps no command waiting.
AGAIN_S = 10.0
#: Done also while a command works on partitions that it names: that command can have nothing to do with
#: this node (`check_cleared`), and may wait for transactions whose commits hang there until it is done.
UNCLAIMED = ("returned",)


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

    async def sweep(self, *, only_new: bool = False) -> None:
        """Tries everything once, but for partitions that a command works on just now.

        Args:
            only_new: not what was tried within the last seconds.
        """
        for left in await self._journal.leftovers():
            cmd_id = int(left["id"])
            recent = time.monotonic() - self._tried.get(cmd_id, -AGAIN_S) < AGAIN_S
            if cmd_id in self._busy or (only_new and recent):
                continue
            self._busy.add(cmd_id)
            try:
                await self._try(cmd_id, int(left["attempt"]), finishing=bool(left["switched"]))
            finally:
                self._busy.discard(cmd_id)
                self._tried[cmd_id] = time.monotonic()

    async def _try(self, cmd_id: int, attempt: int, *, finishing: bool) -> None:
        runner, journal = self._runner, self._journal
        steps = await (journal.to_finish(cmd_id, attempt) if finishing else journal.to_undo(cmd_id))
        parts = parts_of(steps)
        if runner.turns.taken(parts):
            steps = [s for s in steps if finishing and s.kind in UNCLAIMED]
            parts = set()
        if not steps:
            return
        async with runner.turns.take(parts):
            if finishing:
                await _finish(
                    runner, journal, runner.new_run(cmd_id, attempt, gone=set(self._away())), steps
                )
            else:
                await runner.undo(cmd_id, self._away())
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
    runner: Runner, journal: Journal, run: CommandRun, steps: Iterable[Recorded]
) -> None:
    try:
        await runner.finish(run, list(steps))
    finally:
        await run.close()
    for sentence in run.sentences:
        await journal.add_result(run.cmd_id, sentence)
