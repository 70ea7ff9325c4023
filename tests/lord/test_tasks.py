"""Work on several nodes that ends as one."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardman.tasks import (
    TICK_S,
    all_of,
    cancel_once,
    each_of,
    is_cancelled,
    to_its_end,
    until_tick,
)


class Away(Exception):
    """A node does not answer."""


async def _fails(why: str) -> int:
    raise Away(why)


async def _slow(done: list[int], n: int) -> int:
    await asyncio.sleep(0.01)
    done.append(n)
    return n


async def test_each_part_comes_to_its_end_though_another_fails() -> None:
    """A node that is down must not keep the locks on the other one up."""
    done: list[int] = []
    with pytest.raises(Away, match="first"):
        await each_of(_slow(done, 1), _fails("first"), _slow(done, 2), _fails("second"))
    assert done == [1, 2]
    assert await each_of(_slow(done, 3), _slow(done, 4)) == [3, 4]


async def test_all_parts_end_with_the_first_that_fails() -> None:
    done: list[int] = []
    with pytest.raises(Away):
        await all_of(_slow(done, 1), _fails("only"))
    await asyncio.sleep(0.03)
    assert done == []


async def test_what_must_end_is_not_interrupted() -> None:
    done: list[int] = []

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await to_its_end(_slow(done, 1))

    task = asyncio.create_task(tidy())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


async def test_a_task_is_cancelled_once() -> None:
    task = asyncio.create_task(asyncio.sleep(10))
    cancel_once(task)
    cancel_once(task)
    assert task.cancelling() == 1
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_whoever_was_cancelled_knows_it_though_something_else_failed() -> None:
    async def fails() -> bool:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            with pytest.raises(Away):
                await _fails("its session")
        return is_cancelled()

    assert not is_cancelled()
    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    task.cancel()
    assert await task


@given(st.floats(0.25, 60), st.floats(0, 1e7))
def test_who_pauses_ends_at_a_tick_and_not_late(seconds: float, now: float) -> None:
    """Probes come as often as without ticks: a failover is not later."""
    left = until_tick(seconds, now)
    assert seconds - TICK_S < left < seconds + 0.02
    assert (now + left) % TICK_S == pytest.approx(0, abs=1e-6) or (
        now + left
    ) % TICK_S == pytest.approx(TICK_S, abs=1e-6)


def test_a_clock_that_is_early_makes_no_look_twice() -> None:
    assert until_tick(0.25, 9.9999999) == pytest.approx(0.25)
    assert until_tick(0.25, 10.2) == pytest.approx(0.05)
    assert until_tick(0.1, 10.2) == 0.1
