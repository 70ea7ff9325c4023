"""A `pg_dump` of one node restores without an error, and nothing leads from there into the cluster."""

from __future__ import annotations

import psycopg
import pytest

from copies.dumps import database, pg_dump, restore
from shardman.local import Programs
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, make_bank
from shardman.testing.plugin import ClusterFactory
from shardman.testing.waiting import eventually


@pytest.fixture(scope="module")
def cluster(module_cluster_factory: ClusterFactory) -> Cluster:
    """Three workers, which want a password."""
    return module_cluster_factory()


@pytest.fixture(scope="module")
def bank(cluster: Cluster) -> Bank:
    made = make_bank(cluster, 200)
    done = cluster.cmd("select shardman.set_replevel('accounts', 1)")
    assert done.status in ("success", "done"), done
    cluster.sql(1, "create table notes (account int primary key)")
    done = cluster.cmd(
        "select shardman.create_hash_partitions(1, 'notes', 'account', colocate_with => 'accounts')"
    )
    assert done.status == "success", done
    # Its replicas may be left for later, and with them that it is colocated.
    eventually(
        "the metadata say that they lie together",
        lambda: cluster.value(1, "select shardman.colocated('notes', 'accounts')"),
        seconds=60,
    )
    cluster.sql(
        1,
        "alter table notes add foreign key (account) references accounts (id) on delete cascade",
    )
    return made


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchall()


def primaries(dsn: str) -> list[str]:
    """The partitions whose rows are in a database."""
    return [
        str(row[0])
        for row in rows(
            dsn,
            "select i.inhparent::regclass::text from pg_inherits i join pg_class c on c.oid = i.inhrelid"
            " where c.relkind = 'r' and c.relispartition and c.relname ~ '_data$' order by 1",
        )
    ]


def test_a_dump_has_no_way_back(bank: Bank, cluster: Cluster, pg_programs: Programs) -> None:
    node = cluster.dsn(1)
    dump = pg_dump(pg_programs, node, "--no-subscriptions")
    assert cluster.password not in dump
    with database(node, "copied") as copy:
        restore(pg_programs, copy, dump)
        assert primaries(copy) == primaries(node) != []
        for part in primaries(node):
            query = f"select * from {part} order by 1"
            assert rows(copy, query) == rows(node, query)
        # A row to which others refer goes to no other partition there, either.
        guards = "select pg_get_triggerdef(oid) from pg_trigger where tgname = '~shardman_leaving' order by 1"
        assert rows(copy, guards) == rows(node, guards) != []
        assert rows(copy, "select * from pg_user_mappings") == []
        wrappers = (
            "select distinct fdwname from pg_foreign_server s"
            " join pg_foreign_data_wrapper w on w.oid = s.srvfdw"
        )
        assert rows(copy, wrappers) == [("shardman_other_node",)]
        # The rows of other nodes are missed aloud.
        with pytest.raises(psycopg.Error, match="shardman_other_node"):
            rows(copy, "select * from accounts")
        # A dump of the copy restores as well.
        with database(node, "copied_again") as again:
            restore(pg_programs, again, pg_dump(pg_programs, copy))
            assert primaries(again) == primaries(node)


def test_a_dump_brings_our_roles_along(bank: Bank, cluster: Cluster, pg_programs: Programs) -> None:
    node, roles = cluster.dsn(2), ("shardman_operator", "shardman_viewer")
    dump = pg_dump(pg_programs, node, "--no-subscriptions")
    # As on a server that has never had a node.
    for role in roles:
        cluster.sql(2, f"alter role {role} rename to former_{role}".encode())
    try:
        with database(node, "elsewhere") as copy:
            restore(pg_programs, copy, dump)
    finally:
        for role in roles:
            cluster.sql(2, f"drop role if exists {role}".encode())
            cluster.sql(2, f"alter role former_{role} rename to {role}".encode())


def test_the_lords_dump_restores(bank: Bank, cluster: Cluster, pg_programs: Programs) -> None:
    dump = pg_dump(pg_programs, cluster.dsn(0))
    assert cluster.password not in dump
    with database(cluster.dsn(0), "copied") as copy:
        restore(pg_programs, copy, dump)


def test_moves_leave_no_server_in_dumps(bank: Bank, cluster: Cluster) -> None:
    part = primaries(cluster.dsn(2))[0]
    done = cluster.cmd("select shardman.move_part(%s, 3)", (part,))
    assert done.status == "success", done
    left = "select srvname from pg_foreign_server where srvname like 'shardman%\\_c%'"
    assert rows(cluster.dsn(2), left) == []
    assert rows(cluster.dsn(2), "select * from shardman.servers_in_dumps()") == []
