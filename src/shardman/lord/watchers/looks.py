"""Looking at several things again and again: the one mechanism of all watchers.

Each thing, a node or a channel, is looked at in a task of its own, so one that takes long, or hangs, keeps
nobody from looking at the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Generic, TypeVar

from shardman.tasks import pause

K = TypeVar("K")


class Looks(Generic[K]):
    """A task for each thing that is looked at.

    Args:
        group: the tasks are members of it. A look that raises ends the group: what nobody looks at any more
            would never be mended.
        name: of what is looked at, for the log.
        look: looks once; returns the pause until the next look, in seconds.
        leave: closes what the looks at one thing had open.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        name: str,
        look: Callable[[K], Awaitable[float]],
        leave: Callable[[K], Awaitable[None]] | None = None,
    ) -> None:
        self._group = group
        self._name = name
        self._look = look
        self._leave = leave
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._leaving: dict[K, asyncio.Task[None]] = {}

    def keep(self, wanted: Collection[K]) -> None:
        """Looks at these from now on, and at nothing else. One that was left a moment ago is looked at
        again when that has ended, so this is called again and again."""
        for key in self._tasks.keys() - set(wanted):
            self._leaving[key] = self._tasks.pop(key)
            self._leaving[key].cancel()
        self._leaving = {key: task for key, task in self._leaving.items() if not task.done()}
        for key in wanted:
            if key not in self._tasks and key not in self._leaving:
                self._tasks[key] = self._group.create_task(
                    self._again_and_again(key), name=f"{self._name} {key}"
                )

    async def _again_and_again(self, key: K) -> None:
        try:
            while True:
                await pause(await self._look(key))
        finally:
            if self._leave is not None:
                await self._leave(key)
