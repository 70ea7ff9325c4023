"""Stops the shardlord at any point of its journal, from outside, through its database.

The runner writes every step down before it begins and after it has ended. A trigger that waits for an
advisory lock there holds it at that very instant; the test then kills whatever it likes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import psycopg

from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

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


def points(lord: SyncConnection, cmd_id: int) -> list[Point]:
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
    found = every if os.environ.get("SHARDMAN_LONG") else every[start::stride]
    assert found, (len(every), start)
    return found


@contextmanager
def armed(lord_dsn: str, cmd_type: str, point: Point) -> Iterator[SyncConnection]:
    """While the block runs, a command of this type stops at this point."""
    # What is made here is for the lord alone, also while a node is dead.
    here = "-c shardman.ddl=here"
    with psycopg.connect(lord_dsn, autocommit=True, options=here) as holder:
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


def next_point(holder: SyncConnection, point: Point) -> None:
    """Lets the command that stands at a point go on to a later one, and waits until it stands there."""
    (cmd_type,) = holder.execute(
        "select cmd_type from shardman.cmd_log where status = 'in progress'"
        " order by id desc limit 1"
    ).fetchone() or ("",)
    holder.execute(
        "insert into public.crash_point values (%s, %s, %s)", (cmd_type, point.n, point.state)
    )
    holder.execute("select pg_advisory_unlock(%s)", (LOCK,))
    # Behind who has stood at the former one.
    holder.execute("select pg_advisory_lock(%s)", (LOCK,))
    waiting = "select from pg_locks where locktype = 'advisory' and objid = %s and not granted"
    eventually(
        f"the command comes to {point}",
        lambda: holder.execute(waiting, (LOCK,)).fetchall(),
        seconds=60,
        every=0.02,
    )


def wait_until_stopped(holder: SyncConnection, cmd_id: int, seconds: float = 30) -> None:
    """Returns once the command stands at its point.

    Raises:
        AssertionError: it ended or did not get there.
    """
    waiting = "select from pg_locks where locktype = 'advisory' and objid = %s and not granted"
    row = (
        "select l.status, l.step_no, l.step_name, l.error, p.n, p.state"
        " from shardman.cmd_log l left join public.crash_point p on true where l.id = %s"
    )
    eventually(
        f"command {cmd_id} comes to the point",
        lambda: holder.execute(waiting, (LOCK,)).fetchall(),
        seconds=seconds,
        every=0.02,
        after=lambda: holder.execute(row, (cmd_id,)).fetchone(),
    )


def comes_to(holder: SyncConnection, cmd_id: int, point: Point) -> bool:
    """As `wait_until_stopped`; false where the command ended and its plan, made for other nodes than that of
    which the points are, has no such instant.

    Raises:
        AssertionError: it passed the point, or it does neither.
    """
    status = "select 1 from shardman.cmd_log where id = %s and status in ('success', 'done')"

    def ended() -> bool:
        return bool(holder.execute(status, (cmd_id,)).fetchall())

    def stands() -> bool:
        waiting = "select from pg_locks where locktype = 'advisory' and objid = %s and not granted"
        return bool(holder.execute(waiting, (LOCK,)).fetchall())

    eventually(
        f"command {cmd_id} ends or comes to {point}",
        lambda: stands() or ended(),
        seconds=30,
        every=0.02,
    )
    if not ended():
        return True
    found = holder.execute(
        "select state from shardman.cmd_steps where cmd_id = %s and n = %s order by attempt desc limit 1",
        (cmd_id, point.n),
    ).fetchone()
    passed = {"started": ("started", "done"), "done": ("done",)}[point.state]
    assert found is None or found[0] not in passed, (point, found)
    return False


def kill_shardlord(cluster: Cluster, holder: SyncConnection) -> None:
    """SIGKILL to the shardlord that stands at its point. Its server process would not notice before it
    has written what it waits to write; it is ended too, so that nothing was written."""
    cluster.stop_lord(kill=True)
    holder.execute(
        "select pg_terminate_backend(pid, 5000) from pg_locks"
        " where locktype = 'advisory' and objid = %s and not granted",
        (LOCK,),
    )
