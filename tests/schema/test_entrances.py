"""Whoever comes by a node that has committed what writes rows anew waits until all nodes have: none is missing.
Whatever dies meanwhile, nobody waits for long."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from schema.bob import NODES, ROWS, as_bob, move_in
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

#: Whoever changes a table is held up on this node in his COMMIT; those who have no row there commit at once.
SLOW = 2
TRAP = """
set shardman.ddl = 'here';
create schema trap;
grant usage on schema trap to public;
create table trap.caught (change xid8 primary key);
grant insert, select on trap.caught to public;
create function trap.hold() returns trigger language plpgsql as 'begin perform pg_sleep(1.5); return new; end';
create constraint trigger hold after insert on trap.caught
    deferrable initially deferred for each row execute function trap.hold();
create function trap.catch() returns event_trigger language plpgsql as
    'begin insert into trap.caught values (pg_current_xact_id()) on conflict do nothing; end';
create event trigger a_trap on ddl_command_end when tag in ('ALTER TABLE') execute function trap.catch();
"""
HELD = "select pid from pg_stat_activity where wait_event = 'PgSleep' and query ~ '^COMMIT'"
LOCKED = """
select count(*) from pg_locks where relation = 'app.acc'::regclass and mode = 'AccessExclusiveLock'
"""
TYPE = """
select format_type(atttypid, null) from pg_attribute where attname = 'v' and attrelid = 'app.acc'::regclass
"""


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    move_in(
        cluster,
        "create table acc (id int primary key, v int);"
        f" insert into acc select i, i from generate_series(1, {ROWS}) i",
        ("select shardman.create_hash_partitions(1, 'app.acc', 'id', 6)",),
        "acc",
    )
    cluster.sql(SLOW, TRAP)
    return cluster


def alter(cluster: Cluster) -> None:
    """The type of v, through node 1."""
    wanted = "int" if cluster.value(1, TYPE) == "bigint" else "bigint"
    with as_bob(cluster, 1) as bob:
        bob.execute(f"alter table acc alter v type {wanted}".encode())


@contextmanager
def half_committed(cluster: Cluster, *, held: bool) -> Iterator[Future[None]]:
    """While some nodes have committed a change and others have not.

    Args:
        held: the shardlord holds the entrances.
    """
    with ThreadPoolExecutor() as pool:
        change = pool.submit(alter, cluster)
        eventually("a node has not committed yet", lambda: cluster.sql(SLOW, HELD) != [])
        # The holder has it, or nobody.
        eventually("another has", lambda: cluster.value(3, LOCKED), until=lambda n: n == int(held))
        yield change


def changed(cluster: Cluster, node: int) -> tuple[int, int]:
    """How many rows somebody finds who comes by a node, and how many he changes one by one."""
    with as_bob(cluster, node) as bob:
        (found,) = bob.execute("select count(*) from acc").fetchone() or (0,)
        done = [
            bob.execute("update acc set v = v where id = %s", (n,)).rowcount
            for n in range(1, ROWS + 1)
        ]
    return found, sum(done)


def test_no_row_is_missing_while_nodes_commit(acc: Cluster) -> None:
    with half_committed(acc, held=True) as change:
        assert [changed(acc, n) for n in (3, 0)] == [(ROWS, ROWS)] * 2
        change.result()
    assert [acc.value(n, LOCKED) for n in NODES] == [0] * 4


def test_a_change_that_is_taken_back_holds_nothing(acc: Cluster) -> None:
    with as_bob(acc, 1, autocommit=False) as bob:
        bob.execute("alter table acc alter v type numeric")
        # The holder stands behind.
        assert acc.value(3, LOCKED) == 2
        bob.rollback()
    unlocked(acc, *NODES)
    assert changed(acc, 3) == (ROWS, ROWS)


def test_without_a_shardlord_nothing_is_held(acc: Cluster) -> None:
    acc.stop_lord()
    with half_committed(acc, held=False) as change:
        found, _ = changed(acc, 3)
        assert found < ROWS
        change.result()
    acc.start_lord()
    acts(acc)


def acts(cluster: Cluster) -> None:
    eventually("it acts", lambda: not cluster.commands_left(), seconds=20)


def unlocked(cluster: Cluster, *nodes: int) -> None:
    eventually(
        "nothing is locked", lambda: not any(cluster.value(n, LOCKED) for n in nodes), seconds=5
    )


def end_client(cluster: Cluster) -> None:
    cluster.sql(
        1, "select pg_terminate_backend(pid) from pg_stat_activity where query ~ '^alter table acc'"
    )


def kill_lord(cluster: Cluster) -> None:
    cluster.stop_lord(kill=True)


@pytest.mark.parametrize("crash", [end_client, kill_lord])
def test_nobody_waits_for_long_when_something_dies(
    acc: Cluster, crash: Callable[[Cluster], None]
) -> None:
    with half_committed(acc, held=True) as change:
        crash(acc)
        begun = time.monotonic()
        with as_bob(acc, 3) as bob:
            bob.execute("select count(*) from acc")
        assert time.monotonic() - begun < 6
        with contextlib.suppress(psycopg.Error):
            change.result()
    if crash is kill_lord:
        acc.start_lord()
        acts(acc)
    unlocked(acc, *NODES)
    eventually("all have the same", lambda: len({acc.value(n, TYPE) for n in NODES}) == 1)


def test_a_node_dies_while_it_commits(acc: Cluster) -> None:
    with half_committed(acc, held=True) as change:
        acc.kill_node(SLOW)
        with pytest.raises(psycopg.Error):
            change.result()
        unlocked(acc, 0, 1, 3)
    acc.start_node(SLOW)
    all_there = (ROWS, ROWS)
    eventually("all is there", lambda: changed(acc, 3) == all_there, tolerate=psycopg.Error)
