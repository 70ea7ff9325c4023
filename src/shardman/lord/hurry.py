"""How long what a command does behind its switch, or to take itself back, may keep others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from shardman.errors import Code, Temporary

#: One step, in seconds. What takes longer waits for something that hangs.
STEP_S = 180.0
#: A step that was given up ends within this, or goes on alone in a session that is closed.
END_S = 2.0
#: How long what nobody waits for may go on.
IDLE_GRACE_S = 0.1

T = TypeVar("T")


class Hurry:
    """Of one command: whether something that cannot wait stands behind it.

    What it has not done when its time is over is left to the janitor, as where a node is away.
    """

    def __init__(self) -> None:
        self._pressed = asyncio.Event()
        self._grace = 0.0

    @property
    def pressed(self) -> bool:
        """Whether nothing more is to be begun."""
        return self._pressed.is_set()

    def press(self, grace: float) -> None:
        """Somebody waits.

        Args:
            grace: the step that runs may take so much longer, in seconds.
        """
        if not self.pressed:
            self._grace = grace
            self._pressed.set()

    async def bounded(self, work: Coroutine[Any, Any, T], *, waited_for: bool = True) -> T:
        """What a step returns.

        Args:
            waited_for: somebody waits until it is done. Otherwise it gets hardly any grace.

        Raises:
            Temporary: it was given up.
        """
        task = asyncio.create_task(work, name=f"{_name()}: step")
        pressed = asyncio.create_task(self._pressed.wait())
        try:
            await asyncio.wait({task, pressed}, timeout=STEP_S, return_when=asyncio.FIRST_COMPLETED)
            if self.pressed and not task.done():
                grace = self._grace if waited_for else min(self._grace, IDLE_GRACE_S)
                await asyncio.wait({task}, timeout=grace)
            if not task.done():
                raise Temporary(
                    "something that cannot wait came next"
                    if self.pressed
                    else f"it took longer than {STEP_S:.0f} s",
                    code=Code.BUSY,
                )
            return task.result()
        finally:
            pressed.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=END_S)


def _name() -> str:
    task = asyncio.current_task()
    return task.get_name() if task else ""
