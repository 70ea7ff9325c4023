"""The shardlord: the only place where everything is wired together.

Its life is a sequence of tenures. In each it waits for the lease, recovers what a predecessor left,
and runs commands until it is told to stop, loses the lease, or loses the lord's database.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any

import psycopg
import structlog
from psycopg.conninfo import make_conninfo

from shardman import steps  # noqa: F401  (registers every kind of step)
from shardman.commands.base import Claim, Command
from shardman.commands.failover import Failover
from shardman.commands.registry import read
from shardman.commands.suspend_replicas import SuspendReplicas
from shardman.errors import Deposed, Refused, UserError
from shardman.log import configure
from shardman.lord.cluster_reader import read_cluster
from shardman.lord.copies import Copies
from shardman.lord.failures import sentence
from shardman.lord.followers import Followers
from shardman.lord.janitor import Janitor
from shardman.lord.journal import Journal, LordLost
from shardman.lord.leader import Lease, acquire
from shardman.lord.links import Links
from shardman.lord.lists import Lists
from shardman.lord.rebuild import Rebuild
from shardman.lord.reconciler import Reconciler
from shardman.lord.recovery import recover
from shardman.lord.retention import Retention
from shardman.lord.runner import Runner
from shardman.lord.scheduler import disturb, startable
from shardman.lord.sessions import Sessions, open_session
from shardman.lord.together import say_what_runs, together
from shardman.lord.watch import Watch
from shardman.pg.retirement import retire
from shardman.pg.schema import is_current
from shardman.steps.base import Connection
from shardman.tasks import all_of

log = structlog.get_logger()

#: NOTIFY is a hint; this is how late a command may begin when it is lost.
POLL_S = 1.0
SWEEP_S = 2.0
RETRY_S = 0.5

#: Commands that clients' writes wait for: they go before all others.
URGENT = (Failover, SuspendReplicas)
#: How long the end of one is waited for before it is looked again whether it is still needed.
URGENT_WAIT = "1 minute"


class Tenure:
    """One shardlord's time in office."""

    def __init__(self, sessions: Sessions, journal: Journal, lord: Connection) -> None:
        self.sessions = sessions
        self.journal = journal
        self.lord = lord
        self.runner = Runner(sessions, journal)
        self.reconciler = Reconciler(sessions)
        self.running: dict[int, tuple[asyncio.Task[Any], frozenset[Claim]]] = {}
        self.wake = asyncio.Event()
        self.watch = Watch(sessions, self._fail_over)
        self.rebuild = Rebuild(sessions, self.watch.silent)
        self.links = Links(sessions, self.watch.silent, self._suspend)
        self.lists = Lists(sessions, self.runner.turns, self.watch.silent)
        self.retention = Retention(sessions, self.watch.silent, self._suspend)
        self.copies = Copies(sessions, self.watch.silent)
        journal.silent = self.watch.silent
        self.followers = Followers(sessions)
        self.janitor = Janitor(
            self.runner, journal, lambda: self.watch.silent() | self.reconciler.away
        )
        #: What is done about leftovers just now.
        self._sweeps: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Recovers, then runs commands until cancelled or the tenure is over."""
        await self._visit_nodes()
        await recover(self.runner, self.journal)
        log.info("acting", epoch=self.sessions.epoch)
        await together(
            self.reconciler.run(),
            self._listen(),
            self._clean(),
            self._begin_commands(),
            self.watch.run(),
            self.rebuild.run(),
            self.links.run(),
            self.lists.run(),
            self.retention.run(),
            self.copies.run(),
            self.followers.run(),
        )

    async def _fail_over(self, node: int, reason: str) -> None:
        await self._submit_urgent(Failover(node), [str(node), "false"], reason)

    async def _suspend(self, src: int, dest: int, reason: str) -> None:
        await self._submit_urgent(SuspendReplicas(src, dest), [str(src), str(dest)], reason)

    async def _submit_urgent(self, command: Command, opts: list[str], reason: str) -> None:
        """Submits a command and waits for its end. What runs in its way is taken back: it could wait
        for long for what is gone."""
        conn = await self.sessions.lord()
        try:
            claims = command.claims(await read_cluster(conn))
            for task, theirs in self.running.values():
                if disturb(claims, theirs):
                    task.cancel()
            for sweep in self._sweeps:
                sweep.cancel()
            cur = await conn.execute(
                "select shardman.accept_because(%s, %s, %s)", (command.name, opts, reason)
            )
            row = await cur.fetchone()
            assert row is not None
            await conn.execute("select shardman.cmd_wait(%s, %s)", (row[0], URGENT_WAIT))
        finally:
            await conn.close()

    async def _visit_nodes(self) -> None:
        """Raises the epoch on every node that can be reached: older shardlords are refused there
        from now on. A node that cannot learns of it in the first session."""

        async def visit(node_id: int) -> None:
            with contextlib.suppress(psycopg.Error, UserError):
                lord = await self.sessions.lord()
                try:
                    await (await self.sessions.open(node_id, lord)).close()
                finally:
                    await lord.close()

        cluster = await read_cluster(self.lord)
        await all_of(*(visit(n.id) for n in cluster.workers))

    async def _listen(self) -> None:
        conn = await self.sessions.lord()
        try:
            await conn.execute("listen shardman")
            while True:
                async for _ in conn.notifies(timeout=POLL_S):
                    self.wake.set()
                self.wake.set()
        finally:
            await conn.close()

    async def _clean(self) -> None:
        while True:
            await self._sweep()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.reconciler.returned.wait(), SWEEP_S)
            self.reconciler.returned.clear()

    async def _sweep(self, *, only_new: bool = False) -> None:
        sweep = asyncio.create_task(self.janitor.sweep(only_new=only_new))
        self._sweeps.add(sweep)
        try:
            await asyncio.wait({sweep})
        finally:
            sweep.cancel()
            self._sweeps.discard(sweep)
        if not sweep.cancelled():
            sweep.result()

    async def _begin_commands(self) -> None:
        while True:
            self.wake.clear()
            self._reap()
            await self._cancel_requested()
            await self._begin_next()
            await self.wake.wait()

    def _reap(self) -> None:
        for cmd_id, (task, _) in list(self.running.items()):
            if task.done():
                del self.running[cmd_id]
                if not task.cancelled():
                    task.result()

    async def _cancel_requested(self) -> None:
        for cmd_id in await self.journal.cancel_requests():
            if cmd_id in self.running:
                self.running[cmd_id][0].cancel()
            elif cmd_id in self.runner.children:
                self.runner.children[cmd_id].cancel()

    async def _begin_next(self) -> None:
        if self.runner.stopping:
            return  # What is put back now is for the next shardlord.
        # One that was chosen a moment ago may not have marked itself as in progress yet.
        rows = [r for r in await self.journal.waiting() if r["id"] not in self.running]
        if not rows:
            return
        cluster = await read_cluster(self.lord)
        commands: dict[int, Command] = {}
        waiting: list[tuple[int, frozenset[Claim]]] = []
        for row in rows:
            cmd_id = int(row["id"])
            if row["cancel_requested"]:
                await self.journal.end(cmd_id, "canceled", None, None)
                continue
            try:
                commands[cmd_id] = read(row["cmd_type"], row["opts"])
            except Exception as error:  # noqa: BLE001  (one step must not stop the others)
                await self.journal.end(cmd_id, "failed", sentence(error), None)
                continue
            waiting.append((cmd_id, commands[cmd_id].claims(cluster)))
        # What waits for a dead node must not keep it from being replaced.
        waiting.sort(key=lambda each: not isinstance(commands[each[0]], URGENT))
        claims = dict(waiting)
        for cmd_id in startable(waiting, [c for _, c in self.running.values()]):
            task = asyncio.create_task(self._execute(cmd_id, commands[cmd_id]))
            task.add_done_callback(lambda _: self.wake.set())
            self.running[cmd_id] = (task, claims[cmd_id])

    async def _execute(self, cmd_id: int, command: Command) -> None:
        # What an earlier command left half undone could stand in this one's way.
        if isinstance(command, URGENT):
            await self.runner.execute(cmd_id, command, gone=self.watch.silent())
        else:
            await self._sweep(only_new=True)
            await self.runner.execute(cmd_id, command)

    def cancel_running(self) -> None:
        """Takes back what runs, as far as it is not past its point of no return."""
        for task, _ in self.running.values():
            task.cancel()

    async def stop(self) -> None:
        """Ends what runs: finished if past the switch, otherwise undone and left waiting."""
        self.runner.stopping = True
        self.cancel_running()
        await asyncio.gather(*(t for t, _ in self.running.values()), return_exceptions=True)

    def abandon(self) -> None:
        """Drops everything on the spot: another shardlord, or this one later, recovers it."""
        self.runner.abandoned = True
        for task, _ in self.running.values():
            task.cancel()


class Shardlord:
    """The process.

    Args:
        dsn: of the lord's database.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stopping = asyncio.Event()
        self._tenure: Tenure | None = None

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self._stopping.set)
        loop.add_signal_handler(signal.SIGUSR1, self._cancel_running)
        loop.add_signal_handler(signal.SIGUSR2, say_what_runs)
        while not self._stopping.is_set():
            try:
                await self._until_stopped(self._while_lord())
            except* (psycopg.Error, LordLost, Refused) as group:
                for error in group.exceptions:
                    if _is_deposed(error):
                        await _step_down(self._dsn)
                    log.warning("tenure over", reason=_reason(error))
                await self._until_stopped(asyncio.sleep(RETRY_S))
        log.info("stopped")

    def _cancel_running(self) -> None:
        if self._tenure is not None:
            self._tenure.cancel_running()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            if self._tenure is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._tenure.stop(), 20)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _while_lord(self) -> None:
        try:
            await self._one_tenure()
        except _NotLord as reason:
            if await _is_decided(self._dsn):
                raise
            log.warning("a promotion is under way", reason=str(reason))
            await asyncio.sleep(RETRY_S)

    async def _one_tenure(self) -> None:
        await _check(self._dsn)
        lease = await acquire(self._dsn)
        lord = journal_conn = sessions = None
        try:
            # It may have stood by for days.
            await _check(self._dsn)
            sessions = await _sessions(self._dsn, lease)
            lord = await sessions.lord()
            journal_conn = await sessions.lord()
            self._tenure = Tenure(sessions, Journal(journal_conn, lease.epoch), lord)
            await together(lease.keep(), self._tenure.serve())
        finally:
            if self._tenure is not None:
                self._tenure.abandon()
                self._tenure = None
            if sessions is not None:
                sessions.end()
            for conn in (lease.conn, lord, journal_conn):
                if conn is not None:
                    await conn.close()


async def _sessions(dsn: str, lease: Lease) -> Sessions:
    row = await (await lease.conn.execute("select cluster from shardman.local")).fetchone()
    assert row is not None
    return Sessions(dsn, row[0], lease.epoch)


def _is_deposed(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_deposed(each) for each in error.exceptions)
    return isinstance(error, Deposed)


_TERM = (
    "select shardman.setting('lord_term', '0')::bigint, (select id from shardman.nodes where lord)"
)
_PEERS = """
select n.options, s.password from shardman.nodes n left join shardman.node_secrets s on s.node_id = n.id
 where n.worker_status = 'active' and n.id is distinct from (select node_id from shardman.local)
"""


async def _step_down(dsn: str) -> None:
    """Lets a former lord's database know that another one was promoted while it was away."""
    with contextlib.suppress(psycopg.Error):
        conn = await open_session(dsn, "shardman")
        try:
            row = await (await conn.execute("select cluster from shardman.local")).fetchone()
            assert row is not None
            if await _was_replaced(conn):
                await retire(conn, row[0])
        finally:
            await conn.close()


async def _is_decided(dsn: str) -> bool:
    """Whether another database is the lord's: a promotion that has begun here may be taken back."""
    try:
        conn = await open_session(dsn, "shardman")
    except psycopg.OperationalError:
        return False
    try:
        cur = await conn.execute(
            "select exists (select from shardman.nodes n, shardman.local l where n.lord and n.id = l.node_id)"
        )
        return await cur.fetchone() != (True,) or await _was_replaced(conn)
    except psycopg.OperationalError:
        return False
    except psycopg.Error:
        return True  # It has not even our tables.
    finally:
        await conn.close()


async def _was_replaced(conn: Connection) -> bool:
    """Whether a node knows another lord. A promotion that has only begun may fail: this one stays then."""
    mine = await (await conn.execute(_TERM)).fetchone()
    for options, password in await (await conn.execute(_PEERS)).fetchall():
        secret = {} if password is None else {"password": password}
        with contextlib.suppress(psycopg.Error):
            peer = await open_session(make_conninfo("", **options, **secret), "shardman")
            try:
                theirs = await (await peer.execute(_TERM)).fetchone()
            finally:
                await peer.close()
            if mine and theirs and theirs[0] > mine[0] and theirs[1] != mine[1]:
                return True
    return False


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(sentence(error).split()) if isinstance(error, psycopg.Error) else str(error)


async def _check(dsn: str) -> None:
    """Raises UserError when this database cannot be a lord's."""
    try:
        conn = await open_session(dsn, "shardman")
    except psycopg.OperationalError:
        return  # It may be on its way up; the loop below waits for it.
    try:
        row = await (
            await conn.execute(
                "select count(*) = 2 from unnest(array['shardman.local', 'shardman.lease']) as t"
                " where to_regclass(t) is not null"
            )
        ).fetchone()
        if row and row[0]:
            row = await (
                await conn.execute("select lord, cluster, node_id from shardman.local")
            ).fetchone()
        if not (row and row[0]):
            raise _no_lord(*row[1:] if row else (None, None))
        if not await is_current(conn):
            raise UserError(
                "the lord's database has the schema of another version",
                "Run shardman init with the newest version, and only shardlords of that",
            )
    finally:
        await conn.close()


class _NotLord(UserError):
    """Its database is not a lord's."""


def _no_lord(cluster: str | None = None, node: int | None = None) -> UserError:
    if cluster is None:
        return _NotLord("this database is not a lord's", 'Make it one with "shardman init" first')
    if node == 0:
        return _NotLord(
            f"this database was the lord's of cluster {cluster} and is not any more",
            "Run shardman lord with the database that was promoted; add_node makes this one a worker",
        )
    return _NotLord(
        f"this database is worker {node} of cluster {cluster}",
        "Give the lord's database, or make this one the lord's with shardman promote-lord",
    )


async def _main(dsn: str) -> None:
    await _check(dsn)
    await Shardlord(dsn).run()


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
