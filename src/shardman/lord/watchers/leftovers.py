"""Has the janitor try what ended commands left, when there may be something to do.

Leftovers come into being when a command ends, and can mostly be done once a node is back; both are told
here. Otherwise it is looked now and then: often while something is left, seldom while nothing is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from shardman.lord.janitor import Janitor

SWEEP_S = 2.0
CALM_S = 10.0


class Leftovers:
    """The sweeps of one leadership. What is cut short stays in the journal.

    Args:
        returned: set when a node is back.
    """

    def __init__(self, janitor: Janitor, returned: asyncio.Event) -> None:
        self._janitor = janitor
        self._wake = returned
        #: What is done about leftovers just now.
        self._sweeps: set[asyncio.Task[int]] = set()
        #: So many urgent commands run.
        self._held = 0

    def look(self) -> None:
        """There may be something to do: a command has ended."""
        self._wake.set()

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            self._wake.clear()
            left = await self.sweep()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), SWEEP_S if left else CALM_S)

    async def sweep(self, *, only_new: bool = False) -> bool:
        """Tries everything once; whether something was left before.

        Args:
            only_new: not what was tried within the last seconds.
        """
        if self._held:
            return True
        sweep = asyncio.create_task(self._janitor.sweep(only_new=only_new), name="sweep")
        self._sweeps.add(sweep)
        try:
            await asyncio.wait({sweep})
        finally:
            sweep.cancel()
            self._sweeps.discard(sweep)
        return sweep.cancelled() or sweep.result() > 0

    def cancel(self) -> None:
        """Gives up for now: something urgent comes first."""
        for sweep in self._sweeps:
            sweep.cancel()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is tried meanwhile: it would hold partitions that something urgent needs."""
        self._held += 1
        self.cancel()
        try:
            yield
        finally:
            self._held -= 1
