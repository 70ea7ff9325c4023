"""Runs one command: prepare, switch, finish; undoes it when it fails before the switch."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
import structlog

from shardman.commands.base import Claim, Command
from shardman.commands.registry import read
from shardman.errors import NodeGone, Refused
from shardman.lord.cluster_reader import read_cluster
from shardman.lord.failures import sentence
from shardman.lord.journal import BEHIND_S, Journal, LordLost, Recorded
from shardman.lord.planner import make_plan
from shardman.lord.run import CommandRun
from shardman.lord.sessions import Sessions
from shardman.lord.turns import Turns
from shardman.model.plan import Plan, Step
from shardman.steps.base import Connection, bind, bind_args
from shardman.tasks import all_of

log = structlog.get_logger()
T = TypeVar("T")

#: These end the tenure: the journal is gone or is no longer ours. They undo nothing; the next tenure does.
TENURE_OVER = (LordLost, Refused)


#: What is still done on a node that was removed, when it is back.
FOR_REMOVED = ("clean_node",)
GIVEN_UP = "the node was removed"


class Canceled(Exception):
    """The user took the command back."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: str
    error: str | None = None


def nodes_of(args: Iterable[tuple[str, object]]) -> set[int]:
    """The nodes that a step works on, by the names of its arguments."""
    return {v for k, v in args if k in ("node", "src", "dest") and isinstance(v, int)}


class Runner:
    """Runs commands of one tenure."""

    def __init__(self, sessions: Sessions, journal: Journal) -> None:
        self.sessions = sessions
        self.journal = journal
        self.fence = asyncio.Lock()
        #: Who works on a partition, or on the channel between two nodes.
        self.turns = Turns()
        #: Commands that run as parts of others, by id: each can be cancelled by itself.
        self.children: dict[int, asyncio.Task[Outcome]] = {}
        #: Set when the shardlord is told to stop: what is interrupted then is begun anew by the next.
        self.stopping = False
        #: Set when the tenure is over: nothing may be touched any more, the next one recovers.
        self.abandoned = False

    def new_run(
        self, cmd_id: int, attempt: int, parent: int | None = None, gone: set[int] | None = None
    ) -> CommandRun:
        return CommandRun(cmd_id, attempt, self, parent, gone)

    async def child(self, parent: int, cmd_type: str, opts: list[str | None]) -> Outcome:
        """Runs a command as a part of another one."""
        cmd_id = await self.journal.begin_child(parent, cmd_type, opts)
        task = asyncio.create_task(self.execute(cmd_id, read(cmd_type, opts), parent))
        self.children[cmd_id] = task
        try:
            return await task
        finally:
            del self.children[cmd_id]

    async def execute(
        self,
        cmd_id: int,
        command: Command,
        parent: int | None = None,
        gone: set[int] | None = None,
    ) -> Outcome:
        """Runs a command from planning to its end in the journal.

        Args:
            gone: nodes that are not even tried.

        Cancelling the task before the switch undoes the command; afterwards it is not heard.
        """
        # Cancelled halfway it would be in progress with nobody at work.
        attempt = await self._to_its_end(self.journal.begin(cmd_id))
        if attempt is None:
            return Outcome("canceled")
        run = self.new_run(cmd_id, attempt, parent, gone)
        log.info("begin", cmd=cmd_id, type=command.name, attempt=attempt)
        succeeded = False
        try:
            outcome = await self._attempt(command, run)
            await self._to_its_end(
                self.journal.end(
                    cmd_id, outcome.status, outcome.error, " ".join(run.sentences) or None
                )
            )
            succeeded = outcome.status in ("success", "done")
        finally:
            await run.close(keep=succeeded)
        log.info("end", cmd=cmd_id, status=outcome.status, error=outcome.error)
        return outcome

    async def _attempt(self, command: Command, run: CommandRun) -> Outcome:
        async with AsyncExitStack() as held:
            return await self._attempt_holding(held, command, run)

    async def _attempt_holding(
        self, held: AsyncExitStack, command: Command, run: CommandRun
    ) -> Outcome:
        try:
            claims = command.claims(await read_cluster(await run.node(0)))
            await held.enter_async_context(self.turns.take(parts_claimed(claims)))
            plan = await make_plan(command, run)
            await self.journal.store(run.cmd_id, run.attempt, plan)
            for warning in plan.warnings:
                run.say(warning)
            await self._prepare(plan, run)
            if not plan.switch:
                return await self._finish(plan, run)
            # Cancelled inside its commit it would be undone although it has happened.
            await self._to_its_end(self._switch(plan, run))
        except TENURE_OVER:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if self.abandoned:
                raise
            return await self._to_its_end(self._take_back(run, error))
        return await self._to_its_end(self._finish(plan, run))

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Does what must not be left half done: a cancellation is not heard, unless the tenure is over."""
        task = asyncio.create_task(work)
        while True:
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if self.abandoned or task.cancelled():
                    task.cancel()
                    raise

    async def _prepare(self, plan: Plan, run: CommandRun) -> None:
        async def make(n: int, step: Step) -> None:
            await self.journal.start_step(run.cmd_id, run.attempt, n, len(plan), durable=True)
            await bind(step).do(run)
            await self.journal.end_step(run.cmd_id, run.attempt, n, "done")

        for group in plan.groups("prepare"):
            await all_of(*(make(n, step) for n, step in group))

    async def _switch(self, plan: Plan, run: CommandRun) -> None:
        """The point of no return: one transaction in the lord's database.

        Raises:
            LordLost: the connection was lost, so nobody here knows whether it happened; the next tenure
                reads it in the journal.
        """
        conn = await run.node(0)
        try:
            async with conn.transaction():
                await self._decide(conn, plan, run)
        except psycopg.OperationalError as error:
            if conn.closed or conn.broken:
                raise LordLost(str(error)) from error
            raise

    async def _decide(self, conn: Connection, plan: Plan, run: CommandRun) -> None:
        cur = await conn.execute(self.journal.sql("switch"), {"id": run.cmd_id, "epoch": run.epoch})
        if cur.rowcount == 0:
            raise Canceled
        for step in plan.switch:
            await bind(step).do(run)
        await conn.execute(
            self.journal.sql("switch_steps"), {"id": run.cmd_id, "attempt": run.attempt}
        )

    async def _finish(self, plan: Plan, run: CommandRun) -> Outcome:
        if plan.switch:
            # From here on nodes do what must not be forgotten.
            await self.journal.copied(BEHIND_S)
        finisher = Finisher(self.journal, run, len(plan))
        for group in plan.groups("finish"):
            await all_of(
                *(finisher.do(Recorded(run.attempt, n, s.kind, s.args, s.title)) for n, s in group)
            )
        for left in finisher.left:
            run.say(left)
        return Outcome("success" if plan.atomic else "done")

    async def finish(self, run: CommandRun, steps: Sequence[Recorded]) -> list[str]:
        """Runs finish steps that the journal has; returns what was left for later."""
        finisher = Finisher(self.journal, run)
        for step in steps:
            await finisher.do(step)
        return finisher.left

    async def _take_back(self, run: CommandRun, error: BaseException) -> Outcome:
        """Undoes the attempt. Whatever it had open is closed first: that frees locks and sessions."""
        await run.close()
        await self.undo(run.cmd_id)
        if isinstance(error, asyncio.CancelledError | Canceled):
            # A shardlord that is told to stop leaves the command to the next one.
            return Outcome("waiting" if self.stopping and run.parent is None else "canceled")
        reason = sentence(error)
        if reason.startswith("an internal error"):
            log.error("internal error", cmd=run.cmd_id, exc_info=error)
        return Outcome("failed", reason)

    async def undo(self, cmd_id: int, away: Iterable[int] = ()) -> bool:
        """Undoes all that a command has begun, the newest first.

        Args:
            away: nodes that are not even tried. One that cannot be reached is not tried twice.

        Returns:
            Whether nothing remains. What fails stays in the journal for the janitor.
        """
        clean = True
        unreachable = set(away)
        await self.journal.supersede(cmd_id)
        for step in await self.journal.to_undo(cmd_id):
            run = self.new_run(cmd_id, step.attempt, gone=unreachable)
            try:
                await bind_args(step.kind, step.args).undo(run)
            except TENURE_OVER:
                raise
            except NodeGone as gone:
                await self.journal.end_step(cmd_id, step.attempt, step.n, "undone", str(gone))
            except Exception as error:  # noqa: BLE001  (one step must not stop the others)
                clean = False
                reason = sentence(error)
                log.warning("undo later", cmd=cmd_id, step=step.title, error=reason)
                await self.journal.end_step(cmd_id, step.attempt, step.n, "started", reason)
            else:
                await self.journal.end_step(cmd_id, step.attempt, step.n, "undone")
            finally:
                await run.close()
        return clean


class Finisher:
    """Runs finish steps; those behind one that failed on a node wait with it for the janitor. Those that
    run beside it are under way already.

    Args:
        total: the number of steps of the whole plan, where it is known.
    """

    def __init__(self, journal: Journal, run: CommandRun, total: int | None = None) -> None:
        #: What waits, in sentences.
        self.left: list[str] = []
        self._journal = journal
        self._run = run
        self._total = total
        self._sick = set(run.gone)

    async def do(self, step: Recorded) -> None:
        """Does a step, or leaves it.

        Raises:
            LordLost, Refused: the tenure is over.
        """
        where = nodes_of(step.args.items())
        if where & self._sick:
            await self._skip(step, where & self._run.gone)
            return
        await self._journal.start_step(
            self._run.cmd_id, self._run.attempt, step.n, self._total or step.n, durable=False
        )
        try:
            await bind_args(step.kind, step.args).do(self._run)
        except TENURE_OVER:
            raise
        except NodeGone as gone:
            await self._end(step, "done", str(gone))
        except Exception as error:  # noqa: BLE001  (one step must not stop the others)
            reason = sentence(error)
            log.warning("finish later", cmd=self._run.cmd_id, step=step.title, error=reason)
            await self._end(step, "started", reason)
            self.left.append(f"Left for later: {step.title} ({reason})")
            self._sick |= where
        else:
            await self._end(step, "done")

    async def _skip(self, step: Recorded, gone: set[int] | frozenset[int]) -> None:
        if step.kind not in FOR_REMOVED and await self._run.any_removed(gone):
            await self._end(step, "done", GIVEN_UP)
        elif gone:
            self.left.append(f"Left for later: {step.title} (it does not answer)")

    async def _end(self, step: Recorded, state: str, error: str | None = None) -> None:
        await self._journal.end_step(self._run.cmd_id, self._run.attempt, step.n, state, error)


def parts_claimed(claims: Iterable[Claim]) -> set[str]:
    """The names under which `Runner.turns` knows the partitions that a command claims for itself."""
    return {c.name for c in claims if c.name.startswith("part ") and not c.shared}
