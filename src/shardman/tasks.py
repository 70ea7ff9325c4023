"""Concurrent work that ends as one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()

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
    above = asyncio.current_task()
    name = above.get_name() if above else "part"
    tasks = [
        asyncio.create_task(p, name=f"{name}: {n} of {len(parts)}")
        for n, p in enumerate(parts, start=1)
    ]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=GRACE_S)
            say_stuck(stuck)


async def each_of(*parts: Coroutine[Any, Any, T]) -> list[T]:
    """As `all_of`, but each part goes on to its own end: for work on several nodes where what is done on one
    must be done whatever becomes of the others.

    Raises:
        BaseException: what the first of them, in their order, failed with.
    """
    ended: list[T] = []
    for end in await asyncio.gather(*parts, return_exceptions=True):
        if isinstance(end, BaseException):
            raise end
        ended.append(end)
    return ended


#: Who looks at something again and again does so at multiples of this, in seconds of the loop's clock.
TICK_S = 0.25
#: A clock that reads a moment less than it was waited for must not make two looks of one.
_EARLY_S = 0.01


def until_tick(seconds: float, now: float) -> float:
    """A pause cut to end at a tick, in seconds: never longer than asked for, but for `_EARLY_S`, and at most a
    tick shorter. A pause below a tick stays as it is.

    Args:
        seconds: the pause asked for.
        now: the loop's clock.
    """
    if seconds < TICK_S:
        return seconds
    return max(0.0, (now + seconds + _EARLY_S) // TICK_S * TICK_S - now)


async def pause(seconds: float) -> None:
    """Sleeps until a tick (`until_tick`). To wake up costs an idle process more than what it does then, so all
    who look at something wake up together."""
    await asyncio.sleep(until_tick(seconds, asyncio.get_running_loop().time()))


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What work of bounded time returns: however often its caller is cancelled meanwhile, it goes on. Whoever
    was cancelled asks `asyncio.Task.cancelling`, or raises what it was about to raise."""
    task = asyncio.create_task(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()


def cancel_once(task: asyncio.Task[Any]) -> None:
    """Cancels a task unless it was cancelled before: what tidies up is not interrupted again and again."""
    if not task.cancelling():
        task.cancel()


def is_cancelled() -> bool:
    """Whether the task that asks was told to end, whatever it has raised since."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def say_stuck(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Names tasks that do not end although they were cancelled, and what each waits for."""
    for task in tasks:
        log.error("does not end", task=task.get_name(), where=place(task))
        for below in _awaited(task):
            log.error("is waited for", task=below.get_name(), where=place(below))


def _awaited(task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """The members of the task groups at whose ends a task waits."""
    groups = (f.f_locals.get("self") for f in _frames(task.get_coro()))
    return [
        member
        for group in groups
        if isinstance(group, asyncio.TaskGroup)
        for member in asyncio.all_tasks()
        if member in getattr(group, "_tasks", ())
    ]


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
