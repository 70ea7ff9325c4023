"""How long a step may keep what is urgent waiting."""

from __future__ import annotations

import asyncio

import pytest

from shardman.errors import Temporary
from shardman.lord.hurry import Hurry


async def test_a_step_that_is_done_in_time_is_not_disturbed() -> None:
    hurry = Hurry()

    async def step() -> str:
        hurry.press(5)
        await asyncio.sleep(0.01)
        return "done"

    assert await hurry.bounded(step()) == "done"
    assert hurry.pressed


async def test_a_step_that_hangs_is_given_up_after_the_grace() -> None:
    hurry, ended = Hurry(), asyncio.Event()

    async def step() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    asyncio.get_running_loop().call_later(0.01, hurry.press, 0.01)
    with pytest.raises(Temporary, match="cannot wait"):
        await hurry.bounded(step())
    assert ended.is_set()


async def test_what_a_step_fails_with_is_told() -> None:
    async def step() -> None:
        raise KeyError("part")

    with pytest.raises(KeyError):
        await Hurry().bounded(step())
