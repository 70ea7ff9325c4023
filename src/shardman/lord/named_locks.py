"""Things that one task of the shardlord at a time may work on, by name."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager


class NamedLocks:
    """A lock for each name. Several are taken in the order of their names, so nobody waits in a circle."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def taken(self, names: Iterable[str]) -> bool:
        """Whether somebody works on one of them now."""
        return any(self._locks[name].locked() for name in names)

    @asynccontextmanager
    async def take(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Waits until nobody else works on any of them, and keeps others from it meanwhile."""
        async with AsyncExitStack() as held:
            for name in sorted(set(names)):
                await held.enter_async_context(self._locks[name])
            yield
