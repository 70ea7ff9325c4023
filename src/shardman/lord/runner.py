"""Runs one command: prepare, switch, finish; undoes it when it fails before the switch."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import psycopg
import structlog
from structlog.contextvars import bound_contextvars

from shardman.commands.base import Claim, Command
from shardman.errors import Code, Temporary
from shardman.lord import phases
from shardman.lord.behind_ddl import changes_behind
from shardman.lord.entry import Canceled, Entry
from shardman.lord.failures import failure
from shardman.lord.finisher import LEADERSHIP_OVER, undo
from shardman.lord.hurry import Hurry
from shardman.lord.in_doubt import Decision, Doubts
from shardman.lord.journal import BEHIND_S, Journal
from shardman.lord.named_locks import NamedLocks
from shardman.lord.outcome import Outcome
from shardman.lord.planner import make_plan
from shardman.lord.run import CommandRun, Shared
from shardman.lord.sessions import Sessions
from shardman.model.plan import Plan
from shardman.pg.metadata import read_cluster
from shardman.tasks import cancel_once, is_cancelled

log = structlog.get_logger()
T = TypeVar("T")

#: A table that is changed without end makes a command fail in the end.
MOST_ATTEMPTS = 10
#: What commands claim that make a database a node, or none.
MEMBERSHIP = "membership"


class Runner:
    """Runs commands of one leadership.

    Args:
        doubts: what was prepared and not ended, of all leaderships of this process.
    """

    def __init__(self, sessions: Sessions, journal: Journal, doubts: Doubts) -> None:
        self.sessions = sessions
        self.journal = journal
        #: Who works on a partition, or on the channel between two nodes.
        self.named_locks = NamedLocks()
        self._doubts = doubts
        self._shared = Shared(self.named_locks, asyncio.Lock(), self._part, doubts)
        #: Commands that run as parts of others, or before others begin anew, by id: each can be cancelled by
        #: itself.
        self.children: dict[int, asyncio.Task[Outcome]] = {}
        #: Who is at work, or about to be, on which command.
        self._at_work: dict[int, asyncio.Future[Outcome]] = {}
        #: Of each command that runs, and of which command it is a part, or which waits for it to begin anew.
        self._hurries: dict[int, tuple[Hurry, int | None]] = {}
        #: Why commands are taken back that nobody else has cancelled.
        self._because: dict[int, str] = {}
        #: Set when the shardlord is told to stop: what is interrupted then is begun anew by the next.
        self.stopping = False
        #: Set when the leadership is over: nothing may be touched any more, the next one recovers.
        self.abandoned = False

    def run_of(
        self, entry: Entry, parent: int | None = None, away: set[int] | None = None
    ) -> CommandRun:
        """What the steps of a command get to work with.

        Args:
            parent: the command that this one is a part of.
            away: as of `CommandRun`.
        """
        hurry, _ = self._hurries.get(entry.cmd_id, (None, None))
        return CommandRun(entry, self.sessions, self._shared, parent, away, hurry)

    def because(self, cmd_id: int, sentence: str) -> None:
        """A command is taken back, and nobody has asked for it in the lord's database: this is why."""
        self._because.setdefault(cmd_id, sentence)

    def press(self, cmd_id: int, grace: float, because: str) -> None:
        """Something that cannot wait stands behind a command: what it has not done by then behind its switch,
        or to take itself back, is left to the janitor.

        Args:
            grace: the step that runs may take so much longer, in seconds.
            because: what it says when it is taken back.
        """
        self.because(cmd_id, because)
        if cmd_id in self._hurries:
            self._hurries[cmd_id][0].press(grace)
        for part, (_, parent) in list(self._hurries.items()):
            if parent == cmd_id and part in self.children:
                cancel_once(self.children[part])
                self.press(part, grace, because)

    async def _part(self, parent: int, command: Command) -> tuple[str, str | None]:
        outcome = await self.child(parent, command)
        return outcome.status, outcome.error

    async def child(self, parent: int, command: Command) -> Outcome:
        """Runs a command as a part of another one.

        Raises:
            Temporary: something that cannot wait stands behind that.
        """
        if parent in self._hurries and self._hurries[parent][0].pressed:
            raise Temporary("something that cannot wait came next", code=Code.BUSY)
        cmd_id = await self.journal.begin_child(parent, command)
        task = asyncio.create_task(self.execute(cmd_id, command, parent))
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
        away: set[int] | None = None,
        ahead_of: int | None = None,
    ) -> Outcome:
        """Runs a command from planning to its end in the journal.

        Args:
            away: nodes that are not even tried.
            ahead_of: the command that begins anew behind it.

        Cancelling the task before the switch undoes the command; afterwards it is not heard.
        """
        if cmd_id in self._at_work:
            return await asyncio.shield(self._at_work[cmd_id])
        ended = self._at_work[cmd_id] = asyncio.get_running_loop().create_future()
        self._hurries[cmd_id] = Hurry(), parent if ahead_of is None else ahead_of
        outcome = Outcome("canceled")
        try:
            outcome = await self._attempts(cmd_id, command, parent, away)
        finally:
            del self._at_work[cmd_id], self._hurries[cmd_id]
            self._because.pop(cmd_id, None)
            ended.set_result(outcome)
        return outcome

    async def _attempts(
        self, cmd_id: int, command: Command, parent: int | None, away: set[int] | None
    ) -> Outcome:
        """Runs a command until nobody has changed its tables under it."""
        while True:
            # Cancelled halfway it would be in progress with nobody at work.
            entry = await self._to_its_end(Entry.begin(self.journal, cmd_id))
            if entry is None:
                return Outcome("canceled")
            if is_cancelled():
                # It was not heard in there, nor before this attempt, and would never be again.
                outcome = Outcome(self._taken_back(command, cmd_id, parent))
                because = self._because.get(cmd_id)
                await self._to_its_end(entry.end(outcome.status, result=because))
                return outcome
            with bound_contextvars(cmd=cmd_id):
                outcome = await self._execute(entry, command, parent, away)
            if not outcome.first:
                return outcome
            for first, follower in outcome.first:
                await self._ahead(first, follower, cmd_id)

    async def _ahead(self, cmd_id: int, command: Command, behind: int) -> None:
        """Runs a command to its end before another begins anew. What cannot wait for that one presses both."""
        if cmd_id in self._at_work:
            await self._to_its_end(asyncio.wait({self._at_work[cmd_id]}))
            return
        task = asyncio.create_task(self.execute(cmd_id, command, ahead_of=behind))
        self.children[cmd_id] = task
        try:
            await self._to_its_end(asyncio.wait({task}))
            task.result()
        finally:
            task.cancel()
            del self.children[cmd_id]

    def _taken_back(self, command: Command, cmd_id: int, parent: int | None) -> str:
        """How a command ends that was taken back. A shardlord that is told to stop leaves it to the next one.
        What DDL has made must be written down all the same, behind what could not wait."""
        again = self.stopping or (command.follows_ddl and self._hurries[cmd_id][0].pressed)
        return "waiting" if again and parent is None else "canceled"

    async def _execute(
        self, entry: Entry, command: Command, parent: int | None, away: set[int] | None
    ) -> Outcome:
        cmd_id = entry.cmd_id
        run = self.run_of(entry, parent, away)
        log.info("begin", cmd=cmd_id, type=command.name, attempt=entry.attempt)
        succeeded = False
        try:
            outcome = await self._attempt(command, run)
            if outcome.first:
                log.info(
                    "again", cmd=cmd_id, error=outcome.error, behind=[i for i, _ in outcome.first]
                )
                return outcome
            result = " ".join(run.sentences) or None
            await self._to_its_end(
                entry.end(outcome.status, outcome.failure, result, outcome.data(run))
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
            await held.enter_async_context(self.named_locks.take(parts_claimed(claims)))
            plan = await make_plan(command, run)
            await run.entry.store(plan)
            run.figures.planned = plan.data
            for warning in plan.warnings:
                run.say(warning)
            await phases.prepare(plan, run)
            if not plan.switch:
                return await self._finish(plan, run)
            # Cancelled inside its commit it would be undone although it has happened.
            await self._to_its_end(phases.switch(plan, run, self._doubts))
        except LEADERSHIP_OVER:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if self.abandoned:
                raise
            # What was interrupted may fail with something else: the session that it waited in is over.
            canceled = is_cancelled() or isinstance(error, asyncio.CancelledError | Canceled)
            return await self._to_its_end(self._take_back(command, run, error, canceled))
        return await self._to_its_end(self._finish(plan, run))

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Does what must not be left half done: a cancellation is not heard, unless the leadership is over."""
        task = asyncio.create_task(work)
        while True:
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if self.abandoned or task.cancelled():
                    task.cancel()
                    raise

    async def _finish(self, plan: Plan, run: CommandRun) -> Outcome:
        if plan.switch:
            # From here on nodes do what must not be forgotten.
            await self.journal.copied(BEHIND_S)
            self._doubts.decide(run.cmd_id, Decision.CERTAIN)
        await phases.finish(plan, run)
        return Outcome("success" if plan.atomic else "done")

    async def _take_back(
        self, command: Command, run: CommandRun, error: BaseException, canceled: bool
    ) -> Outcome:
        """Undoes the attempt. Whatever it had open is closed first: that frees locks and sessions."""
        await run.close()
        undoing = self.run_of(run.entry, away=set())
        taken_back = self._taken_back(command, run.cmd_id, run.parent)
        undoing.again = canceled and taken_back == "waiting"
        clean = await undo(undoing)
        if canceled:
            if because := self._because.get(run.cmd_id):
                run.say(because)
            return Outcome(taken_back)
        reason = failure(error)
        # What is urgent is looked at anew by who has submitted it.
        again = clean and not command.urgent and run.attempt < MOST_ATTEMPTS
        if again and (first := await self._behind(command, undoing)):
            return Outcome("failed", reason, first)
        if reason.code is Code.INTERNAL_ERROR:
            log.error("internal error", cmd=run.cmd_id, exc_info=error)
        return Outcome("failed", reason)

    async def _behind(self, command: Command, run: CommandRun) -> tuple[tuple[int, Command], ...]:
        """What DDL has left to be written down since the command began: it may be why it failed."""
        try:
            cluster = await read_cluster(await run.node(0))
            return tuple(await changes_behind(self.journal, cluster, command.claims(cluster)))
        except psycopg.OperationalError:
            # Whoever writes the end down sees whether the lord's database is lost.
            return ()
        finally:
            await run.close()


def parts_claimed(claims: Iterable[Claim]) -> set[str]:
    """The names under which `Runner.named_locks` knows what a command claims for itself and what is left of
    others may be about: partitions, and who is a node."""
    return {
        c.name
        for c in claims
        if (c.name.startswith("part ") or c.name == MEMBERSHIP) and not c.shared
    }
