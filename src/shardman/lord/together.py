"""Runs the parts of a tenure together, and ends them together, in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

log = structlog.get_logger()

#: A part that does not end within this when it is cancelled is left alone: a new tenure must not wait
#: for it. Whatever it still tries is refused by the epoch.
GRACE_S = 8.0


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs all parts until one fails or the caller is cancelled; then ends the others.

    Raises:
        BaseException: what the first part failed with.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [t for t in tasks if t.done() and not t.cancelled() and t.exception()]
    finally:
        for task in tasks:
            task.cancel()
        _, stuck = await asyncio.wait(tasks, timeout=GRACE_S)
        for task in stuck:
            log.error("does not end", task=task.get_name(), where=place(task))
    for task in failed:
        task.result()


def place(task: asyncio.Task[Any]) -> str:
    """Where a task is: the innermost call first."""
    frames = [
        f"{Path(f.f_code.co_filename).name}:{f.f_lineno} {f.f_code.co_name}"
        for f in _frames(task.get_coro())
    ]
    return " < ".join(reversed(frames))


def _frames(coro: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of those that it awaits, the outermost first."""
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "ag_frame", None)
        if frame is not None:
            yield frame
        coro = getattr(coro, "cr_await", None) or getattr(coro, "ag_await", None)


def say_what_runs() -> None:
    """Writes down where every task is: for whoever wonders why nothing moves."""
    for task in asyncio.all_tasks():
        log.info("task", name=task.get_name(), where=place(task))
