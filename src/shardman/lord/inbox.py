"""The inbox: which commands begin, which are cancelled, and those that go before all others.

A command that was begun is in the journal, so a shardlord that dies leaves nothing here: the next one
recovers what was in progress and begins what waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from shardman.commands.base import Claim, Command
from shardman.commands.failover import Failover
from shardman.commands.registry import read
from shardman.commands.suspend_replicas import SuspendReplicas
from shardman.lord.entry import Entry
from shardman.lord.failures import failure
from shardman.lord.journal import Journal
from shardman.lord.metadata import Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.runner import Runner
from shardman.lord.scheduler import disturb, startable
from shardman.lord.sessions import Sessions
from shardman.lord.watchers.leftovers import Leftovers
from shardman.tasks import cancel_once

log = structlog.get_logger()

#: How long the end of an urgent command is waited for before it is looked again whether it is still needed, and
#: whether others are.
URGENT_WAIT = "5 seconds"
DECIDED_WAIT = "0.5 seconds"
#: How long a step may still take that stands in the way of an urgent command, in seconds; and one of an urgent
#: command itself.
GRACE_S = 0.3
URGENT_GRACE_S = 1.5
#: Of these there are as many as nodes, and none waits for others to end.
MAX_URGENT = 64


@dataclass(frozen=True)
class Running:
    """A command that was begun."""

    task: asyncio.Task[Any]
    claims: frozenset[Claim]
    urgent: bool = False


class Inbox:
    """Begins the commands of one leadership.

    Args:
        nodes: what is known of the workers.
        leftovers: what ended commands left, which could stand in a command's way.
    """

    def __init__(
        self,
        sessions: Sessions,
        runner: Runner,
        metadata: Metadata,
        nodes: NodeHealth,
        leftovers: Leftovers,
    ) -> None:
        self._sessions = sessions
        self._runner = runner
        self._journal: Journal = runner.journal
        self._metadata = metadata
        self._nodes = nodes
        self._leftovers = leftovers
        self._running: dict[int, Running] = {}
        self._wake = asyncio.Event()

    def look(self) -> None:
        """There may be something to begin or to cancel."""
        self._wake.set()

    async def run(self) -> None:
        """Begins commands until cancelled."""
        while True:
            self._wake.clear()
            self._reap()
            await self._cancel_requested()
            await self._begin_next()
            await self._wake.wait()

    def _reap(self) -> None:
        for cmd_id, running in list(self._running.items()):
            if running.task.done():
                del self._running[cmd_id]
                if not running.task.cancelled():
                    running.task.result()

    async def _cancel_requested(self) -> None:
        for cmd_id in await self._journal.cancel_requests():
            if cmd_id in self._running:
                cancel_once(self._running[cmd_id].task)
            elif cmd_id in self._runner.children:
                cancel_once(self._runner.children[cmd_id])

    async def _begin_next(self) -> None:
        if self._runner.stopping:
            return  # What is put back now is for the next shardlord.
        # One that was chosen a moment ago may not have marked itself as in progress yet.
        rows = [r for r in await self._journal.waiting() if r["id"] not in self._running]
        commands = {int(row["id"]): c for row in rows if (c := await self._decoded(row))}
        if not commands:
            return
        cluster = (await self._metadata.read()).cluster
        claims = {cmd_id: command.claims(cluster) for cmd_id, command in commands.items()}
        # What waits for a dead node must not keep it from being replaced, nor must there be too much of it.
        urgent = [each for each in claims.items() if commands[each[0]].urgent]
        rest = [each for each in claims.items() if not commands[each[0]].urgent]
        self._make_way(urgent, commands)
        running = [r.claims for r in self._running.values()]
        chosen = startable(urgent, running, at_most=MAX_URGENT)
        # Those that still wait for their way stand before the others.
        chosen += startable(rest, running + [each for _, each in urgent])
        for cmd_id in chosen:
            self._begin(cmd_id, commands[cmd_id], claims[cmd_id])

    def _make_way(
        self, urgent: Sequence[tuple[int, frozenset[Claim]]], commands: Mapping[int, Command]
    ) -> None:
        """What runs in the way of an urgent command is taken back, or what it has left to do is set aside for
        the janitor: it could wait for long for what is dead or hangs. It ends within about a second."""
        for cmd_id, claims in urgent:
            self._leftovers.cancel()
            for other, running in self._running.items():
                if not disturb(claims, running.claims):
                    continue
                because = f"Taken back: command {cmd_id} ({commands[cmd_id].name}) could not wait."
                self._runner.press(other, URGENT_GRACE_S if running.urgent else GRACE_S, because)
                if not running.urgent:
                    cancel_once(running.task)

    async def _decoded(self, row: dict[str, Any]) -> Command | None:
        """A waiting command; None for one that ends at once."""
        cmd_id = int(row["id"])
        if row["canceled_by"]:
            await Entry(self._journal, cmd_id).end("canceled")
            return None
        try:
            return read(row["cmd_type"], row["options"])
        except Exception as error:  # noqa: BLE001  (one command must not stop the others)
            await Entry(self._journal, cmd_id).end("failed", failure(error))
            return None

    def _begin(self, cmd_id: int, command: Command, claims: frozenset[Claim]) -> None:
        task = asyncio.create_task(self._execute(cmd_id, command), name=f"command {cmd_id}")
        task.add_done_callback(lambda _: self.look())
        self._running[cmd_id] = Running(task, claims, command.urgent)

    async def _execute(self, cmd_id: int, command: Command) -> None:
        try:
            if command.urgent:
                with self._leftovers.held():
                    await self._runner.execute(cmd_id, command, away=self._nodes.silent())
            else:
                # What an earlier command left half undone could stand in this one's way.
                await self._leftovers.sweep(only_new=True)
                await self._runner.execute(cmd_id, command)
        finally:
            self._leftovers.look()

    async def fail_over(self, node: int, reason: str) -> None:
        """Submits a failover and waits for its end."""
        await self._submit_urgent(Failover(node), reason, URGENT_WAIT)

    async def suspend(self, src: int, dest: int, reason: str, relation: str | None = None) -> None:
        """Submits a suspension of replicas, all or those of a table, and waits until it should be decided.
        Commits may hang on other channels too."""
        await self._submit_urgent(SuspendReplicas(src, dest, relation), reason, DECIDED_WAIT)

    async def _submit_urgent(self, command: Command, reason: str, patience: str) -> None:
        """Waits for the end of one that is on its way already. When that takes too long, others are looked
        after."""
        conn = await self._sessions.lord()
        try:
            cur = await conn.execute(
                "select shardman.accept_because(%s, %s, %s)",
                (command.name, json.dumps(command.options()), reason),
            )
            row = await cur.fetchone()
            assert row is not None
            self.look()
            await conn.execute("select shardman.cmd_wait(%s, %s)", (row[0], patience))
        finally:
            await conn.close()

    def cancel_running(self) -> None:
        """Takes back what runs, as far as it is not past its point of no return: the shardlord was told to."""
        for cmd_id in self._running:
            self._runner.because(cmd_id, "Canceled by SIGUSR1 to the shardlord.")
        self._cancel_all()

    def _cancel_all(self) -> None:
        for running in self._running.values():
            running.task.cancel()

    async def stop(self) -> None:
        """Ends what runs: finished if past the switch, otherwise undone and left waiting."""
        self._runner.stopping = True
        self._cancel_all()
        if tasks := [running.task for running in self._running.values()]:
            await asyncio.wait(tasks)

    def abandon(self) -> None:
        """Drops everything on the spot: another shardlord, or this one later, recovers it."""
        self._runner.abandoned = True
        self._cancel_all()
