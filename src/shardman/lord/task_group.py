"""Runs the parts of a leadership together, and ends them together, in bounded time.

`asyncio.TaskGroup`, which the parts use for their own tasks, waits for every task however long that takes.
A new leadership must not wait for what hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from shardman.tasks import GRACE_S, place, say_stuck

log = structlog.get_logger()


async def run_together(**parts: Coroutine[Any, Any, None]) -> None:
    """Runs all parts until one fails or the caller is cancelled; then ends the others. One that does not
    end within a grace when it is cancelled is left alone: whatever it still tries is refused by the epoch.

    Args:
        parts: by their names, for the log.

    Raises:
        BaseException: what the first part failed with.
    """
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [t for t in tasks if t.done() and not t.cancelled() and t.exception()]
    finally:
        for task in tasks:
            task.cancel()
        _, stuck = await asyncio.wait(tasks, timeout=GRACE_S)
        say_stuck(stuck)
    for task in failed:
        task.result()


def say_what_runs() -> None:
    """Writes down where every task is: for whoever wonders why nothing moves."""
    for task in asyncio.all_tasks():
        log.info("task", name=task.get_name(), where=place(task))
