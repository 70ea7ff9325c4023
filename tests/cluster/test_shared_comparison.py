"""Copies of shared tables are compared while clients write, and mended where it is clear how."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

NODES = (1, 2, 3)
TOWN = '"Län"."Ort\'s"'
SCRIPT = f"""
create schema "Län";
create table {TOWN} (
    "Nr" int, code text, name text not null check (name <> ''), at timestamptz default now(),
    twice int generated always as ("Nr" * 2) stored, primary key ("Nr", code));
insert into {TOWN} ("Nr", code, name) select g, 'c,' || g, 'town ' || g from generate_series(1, 300) g;
create table visit (id int primary key, nr int, code text, foreign key (nr, code) references {TOWN});
"""


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Cluster:
    """A shared table, to which a sharded one refers."""
    for name in ("scrub_every", "failover_after"):
        cluster.sql(0, "insert into shardman.settings values (%s, '1')", (name,))
    cluster.sql(1, SCRIPT.encode())
    for command in (
        f"select shardman.create_shared_table($${TOWN}$$, 1)",
        "select shardman.create_hash_partitions(1, 'visit', 'id', 3)",
    ):
        done = cluster.cmd(command)
        assert done.status in ("success", "done"), done
    return cluster


@contextmanager
def writing(cluster: Cluster) -> Iterator[None]:
    """A client on each of two nodes writes all the time."""
    done = threading.Event()
    failed: list[Exception] = []

    def write(node: int) -> None:
        try:
            with cluster.connect(node) as conn:
                n = 0
                while not done.wait(0.02):
                    n += 1
                    conn.execute(
                        f'update {TOWN} set name = %s where "Nr" between 100 and 120',
                        (f"{node}.{n}",),
                    )
        except psycopg.Error as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(node,)) for node in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failed == []


def behind(cluster: Cluster, node: int, *statements: str) -> None:
    """What a superuser writes to one copy alone."""
    with cluster.connect(node) as conn:
        conn.execute("set session_replication_role = replica")
        for statement in statements:
            assert conn.execute(statement.encode()).rowcount > 0


def compared(cluster: Cluster) -> list[tuple[object, ...]]:
    """What was found of each copy: rows that differ, and whether any ever did."""
    query = (
        "select node, differing, last_difference is not null, mended_at is not null"
        " from shardman.shared_comparisons order by node"
    )
    return cluster.sql(0, query)


def told(cluster: Cluster) -> list[str]:
    """What status says of copies."""
    return [
        " ".join(row)
        for row in cluster.sql(0, "select subject, problem, hint from shardman.status_problems")
        if "copy of the shared table" in row[1]
    ]


def since(cluster: Cluster) -> object:
    """Waits until all copies were compared anew."""
    now = cluster.value(0, "select clock_timestamp()")
    query = "select count(*) from shardman.shared_comparisons where compared_at > %s"
    return eventually(
        "they are compared", lambda: cluster.value(0, query, (now,)), until=lambda n: n == 3
    )


def test_what_one_node_has_otherwise_is_mended_while_clients_write(shared: Cluster) -> None:
    with writing(shared):
        since(shared)
        since(shared)
        # What is on its way is no difference.
        assert compared(shared) == [(n, 0, False, False) for n in NODES]
        behind(
            shared,
            3,
            f'delete from {TOWN} where "Nr" = 7',
            f"insert into {TOWN} (\"Nr\", code, name) values (1000, 'x', 'nowhere')",
            f"update {TOWN} set name = 'other' where \"Nr\" = 8",
        )
        eventually(
            "it is mended, and compared again",
            lambda: compared(shared),
            until=lambda rows: (
                rows == [(1, 0, False, False), (2, 0, False, False), (3, 0, True, True)]
            ),
            after=lambda: told(shared),
        )
        since(shared)
    assert check(shared.lord_dsn, data=True, patience=60) == []
    assert told(shared) == []
    kept = [r[0] for r in shared.sql(3, "select content from shardman.replaced_rows order by 1")]
    assert ["nowhere" in kept[0], "other" in kept[1], len(kept)] == [True, True, 2]


def test_what_rows_refer_to_is_not_taken_away(shared: Cluster) -> None:
    behind(shared, 2, f"insert into {TOWN} (\"Nr\", code, name) values (2000, 'y', 'here')")
    part = shared.value(
        2, "select part_name from shardman.partitions where relation = 'visit' and owner = 2"
    )
    keys = (
        "select g from generate_series(1, 1000) g"
        " where (select p.partition from shardman.partition_of('visit', g::text) p) = %s limit 1"
    )
    key = shared.value(2, keys, (part,))
    behind(shared, 2, f"insert into visit values ({key}, 2000, 'y')")
    (problem,) = eventually("it is told", lambda: told(shared))
    assert "on node 2" in problem and "would refer to nothing" in problem, problem
    (finding,) = check(shared.lord_dsn, data=True, patience=0)
    assert finding.subject == f"{TOWN} on node 2" and "(2000,y)" in finding.what, finding
    shared.sql(2, "delete from visit")
    eventually(
        "it is mended", lambda: compared(shared)[1], until=lambda row: row == (2, 0, True, True)
    )
    assert check(shared.lord_dsn, data=True, patience=60) == []


def test_where_no_copy_is_clearly_right_people_decide(shared: Cluster) -> None:
    for node in (1, 2):
        behind(shared, node, f"update {TOWN} set name = 'of {node}' where \"Nr\" = 9")
    problems = eventually("it is told", lambda: told(shared), until=lambda found: len(found) == 2)
    assert all("no more than half of the copies agree" in p for p in problems), problems
    found = check(shared.lord_dsn, data=True, patience=0)
    assert [f.subject for f in found] == [f"{TOWN} on node {n}" for n in (2, 3)]
    assert all("'c,9'" in f.what or "c,9" in f.what for f in found), found
    assert shared.cmd(f"select shardman.create_shared_table($${TOWN}$$, 2)").status == "success"
    eventually("nothing is told", lambda: told(shared) == [])
    for node in NODES:
        assert shared.value(node, f'select name from {TOWN} where "Nr" = 9') == "of 2"
