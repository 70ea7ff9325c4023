"""Calls to several nodes at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import psycopg


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

    threads = [threading.Thread(target=do, args=(c,), daemon=True) for c in calls]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        for session in sessions:
            session.cancel()
        for thread in threads:
            thread.join()
        raise
    if errors:
        raise errors[0]
    return None


async def _gather(calls: Sequence[Callable[[], Any]]) -> None:
    for found in await asyncio.gather(*(c() for c in calls), return_exceptions=True):
        if isinstance(found, BaseException):
            raise found
