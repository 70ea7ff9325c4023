"""Looking at several things at the same time, and ending that in bounded time. No servers."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from shardman import tasks
from shardman.lord import task_group
from shardman.lord.task_group import run_together
from shardman.lord.watchers.looks import Looks
from shardman.lord.watchers.once import Once

SOON = 0.001


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (of many kinds)
            await asyncio.sleep(SOON)


async def test_each_thing_is_looked_at_again_and_again_until_it_is_left() -> None:
    seen: list[str] = []
    left: list[str] = []

    async def look(key: str) -> float:
        seen.append(key)
        return SOON

    async def leave(key: str) -> None:
        left.append(key)

    async with asyncio.TaskGroup() as group:
        looks = Looks(group, "look at", look, leave)
        looks.keep({"a", "b"})
        await until(lambda: seen.count("a") > 3 and seen.count("b") > 3)
        looks.keep({"a"})
        await until(lambda: left == ["b"])
        seen.clear()
        await until(lambda: seen.count("a") > 3)
        assert "b" not in seen
        looks.keep(set())
    assert left == ["b", "a"]


async def test_one_that_hangs_keeps_nobody_from_looking_at_the_others() -> None:
    seen: list[int] = []
    for_ever = asyncio.Event()

    async def look(key: int) -> float:
        seen.append(key)
        if key == 1:
            await for_ever.wait()
        return SOON

    async with asyncio.TaskGroup() as group:
        looks = Looks(group, "look at", look)
        looks.keep({1, 2})
        await until(lambda: seen.count(2) > 5)
        assert seen.count(1) == 1
        looks.keep(set())


async def test_what_comes_back_is_looked_at_when_it_was_left() -> None:
    """What the looks had open is closed by then: the new ones have their own."""
    seen: list[str] = []
    may_end = asyncio.Event()

    async def look(key: str) -> float:
        seen.append(key)
        return 3600

    async def leave(key: str) -> None:
        await may_end.wait()
        seen.append("left")

    async with asyncio.TaskGroup() as group:
        looks = Looks(group, "look at", look, leave)
        looks.keep({"a"})
        await until(lambda: seen == ["a"])
        looks.keep(set())
        looks.keep({"a"})
        await asyncio.sleep(5 * SOON)
        assert seen == ["a"]
        may_end.set()
        await until(lambda: looks.keep({"a"}) or len(seen) == 3)
        assert seen == ["a", "left", "a"]
        looks.keep(set())


async def test_a_look_that_raises_ends_all() -> None:
    async def look(key: int) -> float:
        if key == 2:
            raise ValueError("no")
        return SOON

    async def watch() -> None:
        async with asyncio.TaskGroup() as group:
            Looks(group, "look at", look).keep({1, 2})
            await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as raised:
        await watch()
    assert raised.group_contains(ValueError)


async def test_parts_end_with_the_first_that_fails() -> None:
    ended: list[str] = []

    async def part() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("part")

    async def fails() -> None:
        await asyncio.sleep(SOON)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await run_together(part=part(), fails=fails())
    assert ended == ["part"]


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_task_that_does_not_end_is_named_and_left_alone(
    grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_group, "GRACE_S", 0.05)
    monkeypatch.setattr(tasks, "GRACE_S", 0.05)
    may_end = asyncio.Event()

    async def deaf() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    async def members() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(deaf(), name="look at node 3")

    async def fails() -> None:
        await asyncio.sleep(SOON)
        raise ValueError("no")

    with capture_logs() as logs, pytest.raises(ValueError, match="no"):
        await run_together(watcher=members() if grouped else deaf(), fails=fails())
    said = {(each["event"], each["task"]) for each in logs}
    wanted = {("does not end", "watcher")}
    if grouped:
        wanted |= {("is waited for", "look at node 3")}
    assert said == wanted
    assert all("deaf" in each["where"] for each in logs if each["task"] != "watcher" or not grouped)
    may_end.set()
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_cancellation_from_outside_is_not_swallowed() -> None:
    begun = asyncio.Event()

    async def part() -> None:
        begun.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(run_together(part=part()))
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


def test_complaints_are_made_once() -> None:
    complaints = Once()
    assert [complaints.first(1), complaints.first(1), complaints.first(2)] == [True, False, True]
    complaints.well(1)
    assert complaints.first(1)
