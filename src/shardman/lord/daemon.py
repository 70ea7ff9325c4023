"""The shardlord: the only place where everything is wired together."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import psycopg
import structlog

from shardman import steps  # noqa: F401  (registers every kind of step)
from shardman.errors import UserError
from shardman.log import configure
from shardman.lord.ask import Askers
from shardman.lord.identity import check
from shardman.lord.in_doubt import Doubts
from shardman.lord.inbox import Inbox
from shardman.lord.janitor import Janitor
from shardman.lord.journal import Journal
from shardman.lord.leadership import Leaderships
from shardman.lord.listener import Listener
from shardman.lord.metadata import Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.recovery import recover
from shardman.lord.runner import Runner
from shardman.lord.sessions import Sessions
from shardman.lord.task_group import run_together, say_what_runs
from shardman.lord.watchers.channels import Channels
from shardman.lord.watchers.client_transactions import ClientTransactions
from shardman.lord.watchers.deadlocks import Deadlocks
from shardman.lord.watchers.entrances import Entrances
from shardman.lord.watchers.followers import Followers
from shardman.lord.watchers.holds import Holds
from shardman.lord.watchers.leftovers import Leftovers
from shardman.lord.watchers.lord_standby_names import LordStandbyNames
from shardman.lord.watchers.maintenance import Maintenance
from shardman.lord.watchers.nodes import Nodes
from shardman.lord.watchers.reach import Reach
from shardman.lord.watchers.rebuild import Rebuild
from shardman.lord.watchers.reconciler import Reconciler
from shardman.lord.watchers.retention import Retention
from shardman.lord.watchers.roles import RolesAlike
from shardman.lord.watchers.schema_changes import SchemaChanges
from shardman.lord.watchers.scrub import Scrub
from shardman.lord.watchers.shared_scrub import SharedScrub
from shardman.lord.watchers.standby_names import StandbyNames
from shardman.lord.watchers.two_phases import TwoPhases
from shardman.tasks import all_of

log = structlog.get_logger()


class Office:
    """All that acts in one leadership (`leadership.Leadership`)."""

    def __init__(
        self, sessions: Sessions, journal: Journal, metadata: Metadata, doubts: Doubts
    ) -> None:
        self._sessions = sessions
        self._journal = journal
        self._metadata = metadata
        self._health = health = NodeHealth()
        journal.silent = health.silent
        self._askers = askers = Askers(sessions)
        self._runner = runner = Runner(sessions, journal, doubts)
        self._reconciler = reconciler = Reconciler(sessions, metadata)
        janitor = Janitor(runner, journal, lambda: health.silent() | reconciler.away)
        self._leftovers = Leftovers(janitor, reconciler.returned)
        self._inbox = inbox = Inbox(sessions, runner, metadata, health, self._leftovers)
        self._listener = Listener(sessions, metadata, inbox.look)
        self._nodes = Nodes(sessions, metadata, health, inbox.fail_over)
        self._maintenance = Maintenance(sessions, metadata, health)
        self._rebuild = Rebuild(sessions, metadata, health)
        self._channels = Channels(
            sessions,
            askers,
            metadata,
            health,
            inbox.suspend,
            self._rebuild.failing,
            TwoPhases(sessions, askers, metadata, runner.named_locks),
        )
        self._retention = Retention(askers, metadata, health, inbox.suspend)
        self._scrub = Scrub(sessions, askers, metadata, health, inbox.suspend)
        self._shared_scrub = SharedScrub(sessions, askers, metadata, health)
        self._standby_names = StandbyNames(sessions, askers, runner.named_locks, health)
        self._lord_standby_names = LordStandbyNames(sessions, metadata, health)
        self._followers = Followers(sessions, metadata, health, lambda: reconciler.unserved)
        self._roles = RolesAlike(askers, metadata, health)
        reach = Reach(sessions, askers, metadata, health)
        self._client_transactions = ClientTransactions(reach)
        self._deadlocks = Deadlocks(askers, metadata, health)
        self._holds = Holds(reach)
        self._entrances = Entrances(reach)
        self._schema_changes = SchemaChanges(sessions, askers, metadata, health)
        self.cancel_running = inbox.cancel_running
        self.stop = inbox.stop
        self.abandon = inbox.abandon

    async def serve(self) -> None:
        """Recovers, then runs commands until cancelled or the leadership is over."""
        await self._visit_nodes()
        await recover(self._runner, self._journal)
        await self._metadata.read()
        log.info("acting", epoch=self._sessions.epoch)
        try:
            await run_together(
                metadata=self._metadata.run(),
                listener=self._listener.run(),
                inbox=self._inbox.run(),
                reconciler=self._reconciler.run(),
                leftovers=self._leftovers.run(),
                maintenance=self._maintenance.run(),
                nodes=self._nodes.run(),
                channels=self._channels.run(),
                retention=self._retention.run(),
                scrub=self._scrub.run(),
                shared_scrub=self._shared_scrub.run(),
                standby_names=self._standby_names.run(),
                lord_standby_names=self._lord_standby_names.run(),
                followers=self._followers.run(),
                rebuild=self._rebuild.run(),
                schema_changes=self._schema_changes.run(),
                roles=self._roles.run(),
                client_transactions=self._client_transactions.run(),
                deadlocks=self._deadlocks.run(),
                holds=self._holds.run(),
                entrances=self._entrances.run(),
            )
        finally:
            await self._askers.close()

    async def _visit_nodes(self) -> None:
        """Raises the epoch on every node that can be reached: older shardlords are refused there
        from now on. A node that cannot learns of it in the first session."""

        async def visit(node_id: int) -> None:
            with contextlib.suppress(psycopg.Error, UserError):
                lord = await self._sessions.lord()
                try:
                    await (await self._sessions.open(node_id, lord)).close()
                finally:
                    await lord.close()

        await all_of(*(visit(n.id) for n in self._metadata.known.cluster.workers))


async def _main(dsn: str) -> None:
    await check(dsn)
    leaderships = Leaderships(dsn, Office)
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, leaderships.stop)
    loop.add_signal_handler(signal.SIGUSR1, leaderships.cancel_running)
    loop.add_signal_handler(signal.SIGUSR2, say_what_runs)
    await leaderships.run()
    log.info("stopped")


def main(dsn: str) -> int:
    """Runs a shardlord in the foreground until SIGTERM.

    Args:
        dsn: of the lord's database.

    Returns:
        The process's exit code.

    Raises:
        UserError: the database is not a lord's.
    """
    configure()
    asyncio.run(_main(dsn))
    return 0
