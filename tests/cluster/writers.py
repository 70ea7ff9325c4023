"""Clients that know what a table must contain afterwards, row by row.

Each client owns the ids that leave a remainder of its number and inserts, updates, deletes and re-keys
them at random; what was acknowledged is remembered. The ways in which statements reach the server
differ: simple protocol, prepared statements, PL/pgSQL with its plan cache, transactions that read
first.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg

from shardman.pg.connection import SyncConnection

Row = dict[str, Any]


@dataclass
class Client:
    """One client.

    Args:
        way: how statements reach the server: simple, prepared, plpgsql, transaction.
        ids: its own.
    """

    dsn: str
    way: str
    ids: range
    table: str
    rows: dict[int, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    done: int = 0
    longest_s: float = 0.0
    longest_at: float = 0.0
    thread: threading.Thread | None = None

    def connect(self) -> SyncConnection:
        factory = psycopg.ClientCursor if self.way == "simple" else psycopg.Cursor
        conn = psycopg.connect(self.dsn, autocommit=True, cursor_factory=factory)
        conn.prepare_threshold = 0 if self.way == "prepared" else None
        return conn

    def run(self, stop: threading.Event, pause_s: float) -> None:
        rng = random.Random(self.way)
        with self.connect() as conn:
            while not stop.is_set():
                begun = time.monotonic()
                try:
                    self.once(conn, rng)
                    self.done += 1
                except psycopg.Error as error:
                    self.errors.append(f"{self.way}: {error.sqlstate}: {error}")
                    if conn.closed or conn.broken:
                        return
                took = time.monotonic() - begun
                if took > self.longest_s:
                    self.longest_s, self.longest_at = took, begun
                if pause_s:
                    time.sleep(pause_s)

    def once(self, conn: SyncConnection, rng: random.Random) -> None:
        id_, value = rng.choice(self.ids), rng.randrange(1_000_000)
        if id_ not in self.rows:
            self.write(conn, "insert", id_, value)
            self.rows[id_] = value
        elif rng.random() < 0.3:
            self.write(conn, "delete", id_, value)
            del self.rows[id_]
        else:
            self.write(conn, "update", id_, value)
            self.rows[id_] = value

    def write(self, conn: SyncConnection, verb: str, id_: int, value: int) -> None:
        """Raises AssertionError when the database forgot something."""
        if self.way == "plpgsql":
            cur = conn.execute("select write_row(%s, %s, %s)", (verb, id_, value))
            row = cur.fetchone()
            count = row[0] if row else None
        elif self.way == "transaction":
            with conn.transaction():
                cur = conn.execute(f"select value from {self.table} where id = %s", (id_,))
                found = cur.fetchone()
                had = self.rows.get(id_)
                if found != (None if had is None else (had,)):
                    self.errors.append(f"read {found} for {id_}, wrote {had}")
                count = self.statement(conn, verb, id_, value)
        else:
            count = self.statement(conn, verb, id_, value)
        if count != 1:
            self.errors.append(f"{self.way}: {verb} of {id_} touched {count} rows")

    def statement(self, conn: SyncConnection, verb: str, id_: int, value: int) -> int:
        text = {
            "insert": f"insert into {self.table} (id, value) values (%(id)s, %(value)s)",
            "delete": f"delete from {self.table} where id = %(id)s",
            "update": f"update {self.table} set value = %(value)s where id = %(id)s returning *",
        }[verb]
        return conn.execute(text, {"id": id_, "value": value}).rowcount


WAYS = ("simple", "prepared", "plpgsql", "transaction")

PLPGSQL = """
create or replace function write_row(verb text, id_ bigint, value_ int) returns int language plpgsql as $$
declare n int;
begin
    case verb
        when 'insert' then insert into {table} (id, value) values (id_, value_);
        when 'delete' then delete from {table} where id = id_;
        else update {table} set value = value_ where id = id_;
    end case;
    get diagnostics n = row_count;
    return n;
end $$
"""


class Writers:
    """Clients of all ways at once, for a table with columns id and value, while the block runs.

    Args:
        dsn: of the node they connect to.
        rows: what the table contains when they start.
        last: ids are 1 … last.
        pause_s: between two statements of a client.
    """

    def __init__(
        self, dsn: str, table: str, rows: Mapping[int, int], last: int, pause_s: float = 0.0
    ) -> None:
        # Others write another table, through another node, by a function of this name.
        with psycopg.connect(dsn, autocommit=True, options="-c shardman.ddl=here") as conn:
            conn.execute(PLPGSQL.format(table=table))
        self._stop = threading.Event()
        self._pause_s = pause_s
        self.clients = [
            Client(dsn, way, range(n + 1, last + 1, len(WAYS)), table) for n, way in enumerate(WAYS)
        ]
        for client in self.clients:
            client.rows = {i: rows[i] for i in client.ids if i in rows}

    def __enter__(self) -> Self:
        for client in self.clients:
            work: Callable[..., None] = client.run
            client.thread = threading.Thread(target=work, args=(self._stop, self._pause_s))
            client.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for client in self.clients:
            if client.thread is not None:
                client.thread.join(60)

    @property
    def rows(self) -> dict[int, int]:
        """What the table must contain."""
        return {i: v for client in self.clients for i, v in client.rows.items()}

    @property
    def errors(self) -> list[str]:
        return [e for client in self.clients for e in client.errors]

    @property
    def done(self) -> int:
        return sum(client.done for client in self.clients)

    @property
    def longest_s(self) -> float:
        return max(client.longest_s for client in self.clients)
