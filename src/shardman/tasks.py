"""Work side by side that ends together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: A part that does not end within this when it is cancelled is left alone: its server hangs.
GRACE_S = 8.0


async def all_of(*parts: Coroutine[Any, Any, T]) -> list[T]:
    """What all parts return; when one fails the others are cancelled, and awaited.

    `asyncio.gather` leaves them running. Whoever then closes the sessions that they wait in leaves
    their sockets with the event loop, and the next connection that gets such a number fails.

    Raises:
        BaseException: what the first part failed with.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE_S)
