"""Stops the shardlord at any point of its journal, from outside, through its database.

The runner writes every step down before it begins and after it has ended. A trigger that waits for an
advisory lock there holds it at that very instant; the test then kills whatever it likes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import psycopg

from shardman.testing.cluster import Cluster

LOCK = 815

_SETUP = """
create table if not exists public.crash_point (cmd_type text, n int, state text);
create or replace function public.crash_here() returns trigger language plpgsql as $$
begin
    if exists (select from public.crash_point p
                 join shardman.cmd_log l on l.id = new.cmd_id and l.cmd_type = p.cmd_type
                where p.n = new.n and p.state = new.state) then
        delete from public.crash_point;
        perform pg_advisory_xact_lock(815);
    end if;
    return new;
end
$$;
create or replace trigger crash_here before update on shardman.cmd_steps
    for each row execute function public.crash_here();
"""


class Point(NamedTuple):
    """One instant of a command: just before a step is written down as begun (``started``), or just
    before it is written down as done."""

    n: int
    title: str
    state: str


def points(lord: psycopg.Connection, cmd_id: int) -> list[Point]:
    """Every instant of a command that has run: read from its journal, so a new step is covered
    without a new line here."""
    rows = lord.execute(
        "select n, title, phase from shardman.cmd_steps where cmd_id = %s"
        " and attempt = (select attempt from shardman.cmd_log where id = %s) order by n",
        (cmd_id, cmd_id),
    ).fetchall()
    found: list[Point] = []
    for n, title, phase in rows:
        states = ("done",) if phase == "switch" else ("started", "done")
        found += [Point(n, title, state) for state in states]
    return found


def sample(every: list[Point], stride: int, start: int = 0) -> list[Point]:
    """One point of so many; all of them with SHARDMAN_LONG=1, as `make crash` sets it."""
    return every if os.environ.get("SHARDMAN_LONG") else every[start::stride]


@contextmanager
def armed(lord_dsn: str, cmd_type: str, point: Point) -> Iterator[psycopg.Connection]:
    """While the block runs, a command of this type stops at this point."""
    with psycopg.connect(lord_dsn, autocommit=True) as holder:
        holder.execute(_SETUP)
        holder.execute("delete from public.crash_point")
        holder.execute(
            "insert into public.crash_point values (%s, %s, %s)", (cmd_type, point.n, point.state)
        )
        holder.execute("select pg_advisory_lock(%s)", (LOCK,))
        yield holder
        with suppress(psycopg.OperationalError):  # the lord's server may be what was killed
            # First the lock: whoever stopped has deleted the point and waits for it.
            holder.execute("select pg_advisory_unlock(%s)", (LOCK,))
            holder.execute("delete from public.crash_point")


def wait_until_stopped(holder: psycopg.Connection, cmd_id: int, seconds: float = 30) -> None:
    """Returns once the command stands at its point.

    Raises:
        AssertionError: it ended or did not get there.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        waiting = holder.execute(
            "select count(*) from pg_locks where locktype = 'advisory' and objid = %s and not granted",
            (LOCK,),
        ).fetchone()
        assert waiting is not None
        if waiting[0]:
            return
        time.sleep(0.02)
    row = holder.execute(
        "select status, step_no, step_name, error from shardman.cmd_log where id = %s", (cmd_id,)
    ).fetchone()
    raise AssertionError(f"command {cmd_id} did not come to the point: {row}")


def kill_shardlord(cluster: Cluster, holder: psycopg.Connection) -> None:
    """SIGKILL to the shardlord that stands at its point. Its server process would not notice before it
    has written what it waits to write; it is ended too, so that nothing was written."""
    cluster.stop_lord(kill=True)
    holder.execute(
        "select pg_terminate_backend(pid, 5000) from pg_locks"
        " where locktype = 'advisory' and objid = %s and not granted",
        (LOCK,),
    )
