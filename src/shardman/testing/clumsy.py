"""What a clumsy superuser does to a node: drops, alters, changes rows and settings."""

from __future__ import annotations

import time
from contextlib import suppress

import psycopg
from psycopg import sql

from shardman.sql.loader import queries
from shardman.testing.cluster import LORD
from shardman.testing.striking import Striking
from shardman.testing.waiting import eventually

#: Until what was damaged is found, with time to spare.
FOUND_S = 4.0
#: Until the scrub has come by and what it found is mended.
MENDED_S = 90.0

#: Settings that somebody may change, and to what.
SETTINGS: dict[str, str] = {
    "synchronous_standby_names": "nobody",
    "statement_timeout": "100ms",
    "lock_timeout": "10ms",
    "default_transaction_read_only": "on",
    "idle_in_transaction_session_timeout": "20ms",
    "default_transaction_isolation": "serializable",
    "wal_sender_timeout": "1s",
}


class Clumsy(Striking):
    """What is dropped, altered or changed, each on one node."""

    def harm(self, kind: str, node: int | None = None) -> None:
        """One of the damages of a kind is done, and there is time to find it. What nobody but a person can
        mend is undone.

        Args:
            kind: what the names of its queries in soak.sql begin with.
            node: where; None: on any worker.
        """
        node = self._pick() if node is None else node
        again = self._do(kind, node)
        time.sleep(FOUND_S)
        if again:
            alone = "-c shardman.ddl=here"
            with (
                suppress(psycopg.Error),
                self._cluster.connect(node, connect_timeout=3, options=alone) as conn,
            ):
                conn.execute(again.encode())

    def _do(self, kind: str, node: int) -> str:
        """Does one of them; the partition that it was about, or what undoes it, where the query tells."""
        named = [query for name, query in queries("soak").items() if name.startswith(f"{kind}_")]
        options = "-c session_replication_role=replica -c shardman.ddl=here -c lock_timeout=10s"
        with self._cluster.connect(node, connect_timeout=3, options=options) as conn:
            found = conn.execute(self._rng.choice(named)).fetchall()
            if not found:
                return ""
            statement, *about = self._rng.choice(found)
            print(f"         node {node}: {' '.join(statement.split())[:100]}", flush=True)
            with suppress(psycopg.Error):
                conn.execute(statement.encode())
            return str(about[0]) if about else ""

    def change_rows(self) -> None:
        """Rows of a replica are changed. Over when the scrub has found and mended that."""
        part = self._do("rows", self._pick())
        if not part:
            return
        now = self._cluster.value(LORD, "select clock_timestamp()")
        eventually(
            f"{part} was compared and is whole",
            lambda: self._cluster.value(LORD, queries("soak")["compared"], (now, part)),
            seconds=MENDED_S,
            tolerate=psycopg.Error,
        )

    def drop_rows(self) -> None:
        """The rows of a primary are dropped. Over when a replica has taken over by command."""
        node = self._pick()
        eventually("no command is left", lambda: self._cluster.commands_left() == 0, seconds=90)
        part = self._do("primary", node)
        if not part:
            return
        failover = "select shardman.failover(%s, part_name => %s)"
        eventually(
            f"a replica of {part} takes over",
            lambda: self._cluster.cmd(failover, (node, part)),
            until=lambda done: (
                done.status in ("success", "done") or "has the rows" in str(done.error)
            ),
            seconds=60,
            every=1,
            tolerate=psycopg.Error,
        )

    def change_setting(self) -> None:
        """A setting of a server is another for a while."""
        node = self._strike()
        name, value = self._rng.choice(sorted(SETTINGS.items()))
        print(f"         on node {node}: {name} = {value}", flush=True)
        setting = sql.Identifier(name)
        with self._cluster.connect(node, options="-c statement_timeout=0") as conn:
            conn.execute("set default_transaction_read_only = off")
            conn.execute(sql.SQL("alter system set {} = {}").format(setting, sql.Literal(value)))
            conn.execute("select pg_reload_conf()")
            time.sleep(FOUND_S)
            if name != "synchronous_standby_names":
                conn.execute(sql.SQL("alter system reset {}").format(setting))
                conn.execute("select pg_reload_conf()")
