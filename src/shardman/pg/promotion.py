"""Makes a worker's copy of the metadata the lord's.

Nothing is decided before one transaction on that worker (`shardman.become_lord`). What comes before it
can be repeated; what comes after it, the shardlord of the new lord's database does (`lord/followers.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from shardman import names
from shardman.errors import UserError
from shardman.pg.initialize import PUBLISHED
from shardman.pg.reach import Connection, Reach
from shardman.pg.retirement import retire

#: For clients that have submitted a command in a transaction that they keep open.
ACCEPT_S = 30
#: For the worker's copy to have all that the lord has.
CATCH_UP_S = 60
_OURS = (
    "select set_config('synchronous_commit', 'local', false),"
    " set_config('lock_timeout', %s, false), set_config('statement_timeout', '0', false)"
)


@dataclass(frozen=True)
class Promoted:
    """What a promotion has done.

    Args:
        node: whose database is the lord's now.
        dsn: how it is reached, without its password.
        former: the id that the former lord's database had.
        away: members that could not be reached and learn of it later.
    """

    node: int
    dsn: str
    former: int
    away: list[int]


def promote(dsn: str, node: int, *, force: bool, say: Callable[[str], None]) -> Promoted:
    """Makes the copy of the metadata on a worker the lord's; safe to repeat.

    Args:
        dsn: of any node that can be reached.
        node: the worker.
        force: also without the lord's database, when that cannot be reached.
        say: hears what goes on.

    Raises:
        UserError: the worker is none, another one has newer metadata, the lord cannot be reached.
    """
    with Reach(dsn) as reach, ExitStack() as stack:
        return _Promotion(reach, node, stack, say, force).run()


class _Promotion:
    def __init__(
        self,
        reach: Reach,
        node: int,
        stack: ExitStack,
        say: Callable[[str], None],
        force: bool,
    ) -> None:
        self._reach, self._node, self._say, self._force = reach, node, say, force
        self._slot = names.meta_slot(reach.cluster, node)
        self._open: dict[int, Connection] = {}
        for member in {n.id for n in reach.members} | {node}:
            try:
                self._open[member] = stack.enter_context(reach.open(member))
                self._open[member].execute(_OURS, (f"{ACCEPT_S}s",))
            except UserError as error:
                if member == node:
                    raise
                say(f"Node {member} cannot be reached: {error.what}.")

    def run(self) -> Promoted:
        self._require_worker()
        former = self._former()
        if former == self._node and self._acts():
            return self._done(former)
        if former != self._node and former not in self._open and not self._force:
            raise UserError(
                f"the lord's database (node {former}) cannot be reached",
                "Start it, or give --force if it is lost: a lord that is alive is shut out then",
            )
        self._require_newest()
        epoch = self._fence(former)
        try:
            self._make_way(former, epoch)
            self._decide(epoch)
        except BaseException:  # Ctrl-C as well: without a lord nobody could submit anything
            self._take_back(former, epoch)
            raise
        if former in self._open and former != self._node:
            asyncio.run(_retire(self._reach, former))
        return self._done(former)

    def _make_way(self, former: int, epoch: int) -> None:
        """The former lord decides nothing more, and the worker's copy has all that it decided."""
        if former in self._open and former != self._node:
            self._say(f"The lord's database (node {former}) steps down.")
            self._catch_up(former, epoch)
        else:
            self._cut_off()
        self._require_newest()

    def _take_back(self, former: int, epoch: int) -> None:
        """Nothing was decided: the lord goes on, in the new term, for its old one is refused everywhere."""
        if self._acts():
            return  # It was: what failed came behind the decision.
        if former in self._open and former != self._node:
            with suppress(psycopg.Error):
                self._open[former].execute("select shardman.stay_lord(%s)", (epoch,))
        with suppress(psycopg.Error):
            self._resume()

    def _acts(self) -> bool:
        row = self._open[self._node].execute("select lord from shardman.local").fetchone()
        return bool(row and row["lord"])

    def _done(self, former: int) -> Promoted:
        away = sorted({n.id for n in self._reach.members} - self._open.keys())
        params = {k: v for k, v in self._reach.params(self._node).items() if k != "password"}
        return Promoted(self._node, make_conninfo("", **params), former, away)

    def _require_worker(self) -> None:
        row = self._reach.nodes.get(self._node)
        if row is None or not row.alive:
            known = ", ".join(str(n.id) for n in self._reach.members if n.status == "active")
            raise UserError(f"there is no worker {self._node}", f"The workers are: {known}")

    def _former(self) -> int:
        """The lord by the newest metadata that can be read."""
        newest = max(self._open, key=self._position)
        row = self._open[newest].execute("select id from shardman.nodes where lord").fetchone()
        return int(row["id"]) if row else self._reach.lord

    def _position(self, node: int) -> float:
        return self._positions().get(node, -1)

    def _positions(self) -> dict[int, int]:
        """How new the metadata of each worker are. What is the lord's is newer than any copy."""
        found = {}
        for node, conn in self._open.items():
            row = conn.execute(
                "select shardman.copy_position() as at, shardman.setting('lord_term', '0')::numeric as term,"
                " exists (select from shardman.nodes where lord and id = l.node_id) as lord"
                " from shardman.local l where l.cluster = %s and l.node_id = %s",
                (self._reach.cluster, node),
            ).fetchone()
            if row is not None:
                own = (row["term"] + 1) * 2**64 - 1
                found[node] = int(own if row["lord"] else row["at"])
        return found

    def _require_newest(self) -> None:
        """A copy that lacks what another one has must not become the lord's; what the lord itself has is
        awaited."""
        positions = self._positions()
        lords = {self._former()} - {self._node}
        rivals = {n: at for n, at in positions.items() if n not in lords}
        best = max(rivals, key=lambda n: rivals[n])
        if rivals[best] > positions[self._node]:
            raise UserError(
                f"the metadata of node {self._node} are older than those of node {best}",
                f"Promote node {best}, which has the newest",
            )

    def _fence(self, former: int) -> int:
        """From here on every node that can be reached refuses the shardlord of the former lord."""
        newest = 0
        for conn in self._open.values():
            row = conn.execute("select shardman.newest_epoch() as epoch").fetchone()
            newest = max(newest, int(row["epoch"]) if row else 0)
        epoch = (names.term(newest) + 1) << names.TERM_SHIFT
        # On the lord first, where the shardlord cannot do without its sessions.
        for node in sorted(self._open, key=lambda n: n != former):
            conn = self._open[node]
            # Committed before the others' sessions end: they would come back and wait.
            conn.execute("update shardman.local set epoch = %s where epoch < %s", (epoch, epoch))
            conn.execute("select shardman.end_older_lords(%s)", (epoch,))
        return epoch

    def _catch_up(self, former: int, epoch: int) -> None:
        """The lord accepts nothing more, and the worker's copy gets all that it has."""
        lord = self._open[former]
        try:
            row = lord.execute("select shardman.step_down(%s) as upto", (epoch,)).fetchone()
        except psycopg.errors.LockNotAvailable:
            raise UserError(
                "a client has submitted a command in a transaction that it keeps open",
                "End that transaction and try again",
            ) from None
        assert row is not None
        if former not in self._positions():
            return
        if not _has_slot(lord, self._slot):
            if self._force:
                return
            raise UserError(
                f"node {self._node} does not follow the lord: nothing carries its changes there",
                "Choose another worker, or give --force to take what the worker has for the truth",
            )
        until = time.monotonic() + CATCH_UP_S
        while not _confirmed(lord, self._slot, row["upto"]):
            if time.monotonic() > until:
                raise UserError(
                    f"node {self._node} does not get the lord's last changes",
                    "See the log of its server, then run the same command again",
                )
            time.sleep(0.02)

    def _cut_off(self) -> None:
        """A lord that is out of our reach, but not out of the workers', can have nothing confirmed by
        them any more."""
        for node, conn in self._open.items():
            _unsubscribe(conn, names.meta_slot(self._reach.cluster, node), only_disable=True)

    def _resume(self) -> None:
        for node, conn in self._open.items():
            name = names.meta_slot(self._reach.cluster, node)
            if _subscribed(conn, name):
                conn.execute(sql.SQL("alter subscription {} enable").format(sql.Identifier(name)))

    def _decide(self, epoch: int) -> None:
        conn = self._open[self._node]
        _unsubscribe(conn, self._slot, only_disable=True)
        with conn.transaction():
            _unsubscribe(conn, self._slot, only_disable=False)
            conn.execute("select shardman.become_lord(%s)", (epoch,))
            _publish(conn, names.meta_publication(self._reach.cluster))


def _has_slot(conn: Connection, name: str) -> bool:
    cur = conn.execute("select from pg_replication_slots where slot_name = %s", (name,))
    return cur.fetchone() is not None


def _confirmed(lord: Connection, slot: str, upto: str) -> bool:
    lord.execute("select shardman.emit()")
    cur = lord.execute(
        "select from pg_replication_slots where slot_name = %s and confirmed_flush_lsn >= %s::pg_lsn",
        (slot, upto),
    )
    return cur.fetchone() is not None


def _subscribed(conn: Connection, name: str) -> bool:
    cur = conn.execute(
        "select from pg_subscription s join pg_database d on d.oid = s.subdbid"
        " and d.datname = current_database() where s.subname = %s",
        (name,),
    )
    return cur.fetchone() is not None


def _unsubscribe(conn: Connection, name: str, *, only_disable: bool) -> None:
    if not _subscribed(conn, name):
        return
    subscription = sql.Identifier(name)
    if not only_disable:
        conn.execute(sql.SQL("alter subscription {} set (slot_name = none)").format(subscription))
        conn.execute(sql.SQL("drop subscription {}").format(subscription))
        return
    conn.execute(sql.SQL("alter subscription {} disable").format(subscription))
    running = "select from pg_stat_subscription where subname = %s and pid is not null"
    while conn.execute(running, (name,)).fetchone() is not None:
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_subscription"
            " where subname = %s and pid is not null",
            (name,),
        )
        time.sleep(0.02)


def _publish(conn: Connection, name: str) -> None:
    tables = sql.SQL(", ").join(
        sql.SQL("only {}").format(sql.Identifier("shardman", table)) for table in PUBLISHED
    )
    conn.execute(sql.SQL("drop publication if exists {}").format(sql.Identifier(name)))
    conn.execute(sql.SQL("create publication {} for table {}").format(sql.Identifier(name), tables))


async def _retire(reach: Reach, former: int) -> None:
    conninfo = make_conninfo("", **reach.params(former))
    async with await AsyncConnection.connect(conninfo, autocommit=True) as conn:
        await conn.execute(_OURS, (f"{ACCEPT_S}s",))
        await retire(conn, reach.cluster)
