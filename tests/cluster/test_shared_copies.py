"""Shared tables of which a worker has died: the others go on, and it gets its copies anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

COUNTRY = '"Län"."Land\'s"'
TOWN = '"Län".town'
SCRIPT = f"""
create schema "Län";
create table {COUNTRY} (code text primary key, "Name" text unique);
create table {TOWN} (
    id int generated always as identity primary key, country text not null references {COUNTRY});
insert into {COUNTRY} values ('de', 'Deutschland'), ('fr', 'France');
create table acc (id int primary key, country text references {COUNTRY});
insert into acc select g, 'de' from generate_series(1, 40) g;
"""


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Cluster:
    """Two shared tables, and a sharded one with replicas that refers to the first."""
    cluster.sql(0, "insert into shardman.settings values ('failover_after', '1')")
    cluster.sql(1, SCRIPT.encode())
    for command in (
        f"select shardman.create_shared_table($${COUNTRY}$$, 1)",
        f"select shardman.create_shared_table($${TOWN}$$, 1)",
        "select shardman.create_hash_partitions(1, 'acc', 'id', 3)",
        "select shardman.set_replevel('acc', 1)",
    ):
        done = cluster.cmd(command)
        assert done.status in ("success", "done"), done
    return cluster


def used_by(cluster: Cluster, relation: str) -> list[int]:
    """The nodes whose copies are in use."""
    query = "select node from shardman.shared_copies where relation = %s order by 1"
    return [row[0] for row in cluster.sql(0, query, (relation,))]


def same(cluster: Cluster, relation: str) -> list[tuple[object, ...]]:
    """The rows of all workers, which must be the same."""
    first, *others = (cluster.sql(n, f"select * from {relation} order by 1") for n in (1, 2, 3))
    assert all(found == first for found in others)
    return first


@contextmanager
def away(cluster: Cluster, node: int, *relations: str) -> Iterator[None]:
    """A worker is dead until others write without it; afterwards it gets its copies anew."""
    eventually(
        "every partition of acc has a replica that could take over",
        lambda: cluster.value(
            0, "select below_level from shardman.status_tables where relation = 'acc'"
        ),
        until=lambda below: below == 0,
        seconds=60,
    )
    cluster.stop_node(node)
    try:
        eventually(
            "others write without it",
            lambda: [used_by(cluster, r) for r in relations],
            until=lambda used: not any(node in nodes for nodes in used),
            seconds=40,
        )
        yield
    finally:
        cluster.start_node(node)
    eventually(
        "it has its copies",
        lambda: [used_by(cluster, r) for r in (COUNTRY, TOWN)],
        until=lambda used: used == [[1, 2, 3]] * 2,
        seconds=60,
        after=lambda: cluster.sql(0, "select * from shardman.commands order by id desc limit 8"),
    )


@pytest.mark.parametrize(("dead", "writer"), [(3, 2), (1, 3)])
def test_others_write_while_a_worker_is_dead(shared: Cluster, dead: int, writer: int) -> None:
    """Also when it is the first, whose lock writers wait for."""
    new = f"c{dead}"
    with away(shared, dead, COUNTRY, TOWN):
        write = f"insert into {COUNTRY} values ('{new}', 'new') on conflict do nothing"
        eventually("writes go on", lambda: shared.sql(writer, write) == [], tolerate=psycopg.Error)
        shared.sql(writer, f"insert into {TOWN} (country) values ('{new}')")
        shared.sql(writer, f"delete from {COUNTRY} where code = 'fr'")
        told = shared.sql(0, "select subject, problem from shardman.status_problems")
        assert any(s == f"shared tables on node {dead}" and "town" in p for s, p in told), told
        refused = shared.cmd(f"select shardman.unshare_table($${TOWN}$$, {writer})")
        assert refused.code == "node_unreachable", refused
        eventually(
            "rows that refer to it go on",
            lambda: shared.sql(writer, f"update acc set country = '{new}'") == [],
            tolerate=psycopg.Error,
            seconds=30,
        )
    assert new in {row[0] for row in same(shared, COUNTRY)}
    assert same(shared, TOWN)
    # It writes as the others do.
    shared.sql(dead, f"update {COUNTRY} set \"Name\" = 'from {dead}' where code = '{new}'")
    assert (new, f"from {dead}") in same(shared, COUNTRY)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        shared.sql(dead, f"delete from {COUNTRY} where code = '{new}'")
    assert check(shared.lord_dsn, data=True, patience=60) == []


def test_what_is_changed_meanwhile_reaches_it(shared: Cluster) -> None:
    with away(shared, 2, COUNTRY, TOWN):
        eventually(
            "others change it",
            lambda: shared.sql(3, f"alter table {COUNTRY} add column more int default 7") == [],
            tolerate=psycopg.Error,
            seconds=30,
        )
        shared.sql(1, f"create index on {TOWN} (country)")
    assert {row[2] for row in same(shared, COUNTRY)} == {7}
    shared.sql(2, f"update {COUNTRY} set more = 8")
    assert {row[2] for row in same(shared, COUNTRY)} == {8}
    assert check(shared.lord_dsn, data=True, patience=60) == []


def test_rows_that_only_the_dead_one_has_may_forbid_a_delete(shared: Cluster) -> None:
    """So what they refer to waits for it; other shared tables do not."""
    shared.sql(1, f"create table lone (id int primary key, country text references {COUNTRY})")
    assert (
        shared.cmd("select shardman.create_hash_partitions(1, 'lone', 'id', 3)").status == "success"
    )
    with away(shared, 3, TOWN):
        assert used_by(shared, COUNTRY) == [1, 2, 3]
        write = f"update {TOWN} set country = country"
        eventually("writes go on", lambda: shared.sql(1, write) == [], tolerate=psycopg.Error)
        with pytest.raises(psycopg.OperationalError, match="node 3 cannot be reached"):
            shared.sql(1, f"delete from {COUNTRY} where code = 'de'")
    assert check(shared.lord_dsn, data=True, patience=60) == []
