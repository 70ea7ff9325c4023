"""Calls to several nodes at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg

#: How long a node may take to hear that a statement is cancelled, and then to end it, in seconds.
CANCEL_S = 5.0


def at_once(sessions: Sequence[Any], calls: Sequence[Callable[[], Any]]) -> Any:
    """Does all of them at the same time; raises the first error when all have ended."""
    if isinstance(sessions[0], psycopg.AsyncConnection):
        return _gather(calls)
    errors: list[BaseException] = []

    def do(call: Callable[[], Any]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - who waits raises it
            errors.append(error)

    workers = [Worker(partial(do, c)) for c in calls]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.wait()
    except BaseException:
        # Nobody may find a session at the work of a thread that he knows nothing of.
        for session, worker in zip(sessions, workers, strict=True):
            interrupt(session, worker)
        raise
    if errors:
        raise errors[0]
    return None


def interrupt(session: Any, worker: Worker) -> None:
    """Cancels what a thread does on a session; one whose node does not answer is closed, and left to itself."""
    if worker.wait(0):
        return
    with suppress(psycopg.Error):
        session.cancel_safe(timeout=CANCEL_S)
    if not worker.wait(CANCEL_S):
        session.close()


class Worker(threading.Thread):
    """A thread that can be waited for again. Up to Python 3.12 a `join` that Ctrl-C has ended takes the thread
    for one that has ended, too.

    Args:
        work: what it does.
    """

    def __init__(self, work: Callable[[], None], name: str | None = None) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self._has_ended = threading.Event()

    def run(self) -> None:
        """Does it."""
        try:
            super().run()
        finally:
            self._has_ended.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for its end, for so many seconds at most; whether it has come."""
        return self._has_ended.wait(timeout_s)


async def _gather(calls: Sequence[Callable[[], Any]]) -> None:
    for found in await asyncio.gather(*(c() for c in calls), return_exceptions=True):
        if isinstance(found, BaseException):
            raise found
