"""set_partitions_count on real servers: more and fewer partitions while clients write through every node."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from cluster.writers import Client, Writers
from crash.stops import Point, armed, wait_until_stopped
from shardman.errors import Code
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster, CommandResult
from shardman.testing.waiting import eventually

TABLE = '"Läden"."Ko.nto"'
WORKERS = (1, 2, 3)
NODES = (0, *WORKERS)
LAST = 300
#: On a machine that does much else at the same time.
LONGEST_S = 15.0


@pytest.fixture(scope="module")
def sharded(cluster: Cluster) -> Cluster:
    """A table of 3 partitions with everything that has a name of its own."""
    cluster.sql(1, 'create schema "Läden"')
    cluster.sql(
        1,
        f"create table {TABLE} (id bigint primary key, value int not null, note text not null default 'n',"
        " twice int generated always as (value * 2) stored, unique (id, value))".encode(),
    )
    cluster.sql(1, f"create statistics both_of on id, value from {TABLE}".encode())
    cluster.sql(1, f'create index "By.Value" on {TABLE} (value)'.encode())
    done = cluster.cmd("select shardman.create_hash_partitions(1, %s, 'id', 3)", (TABLE,))
    assert done.status == "success", done
    cluster.sql(1, f"create view over_all as select id, value from {TABLE}".encode())
    return cluster


def resize(cluster: Cluster, count: int) -> CommandResult:
    return cluster.cmd("select shardman.set_partitions_count(%s, %s)", (TABLE, count))


@contextmanager
def writers(cluster: Cluster) -> Iterator[dict[int, int]]:
    """Clients of all ways through every worker; the rows that there must be afterwards."""
    cluster.sql(1, f"truncate {TABLE}".encode())
    found: dict[int, int] = {}
    with ExitStack() as stack:
        crowds = [
            stack.enter_context(_shifted(cluster, node, node * 1_000_000)) for node in WORKERS
        ]
        clients = [client for crowd in crowds for client in crowd.clients]
        go_on(clients)
        yield found
        # With the new partitions, and with what they have prepared.
        go_on(clients)
    for crowd in crowds:
        assert crowd.errors == []
        found |= crowd.rows
    assert max(crowd.longest_s for crowd in crowds) < LONGEST_S


def go_on(clients: list[Client]) -> None:
    """Waits until each has done something more."""
    before = [client.done for client in clients]
    eventually(
        "all clients go on",
        lambda: min(c.done - b for c, b in zip(clients, before, strict=True)),
        until=lambda least: least > 2,
    )


def _shifted(cluster: Cluster, node: int, first: int) -> Writers:
    """Each crowd has ids of its own."""
    crowd = Writers(cluster.dsn(node), TABLE, {}, LAST, pause_s=0.1)
    for client in crowd.clients:
        client.ids = range(client.ids.start + first, client.ids.stop + first, client.ids.step)
    return crowd


def whole(cluster: Cluster, rows: dict[int, int], count: int) -> None:
    """The table has these rows and partitions on every node, and nothing of a command is left."""
    assert check(cluster.lord_dsn, data=True) == []
    for node in NODES:
        assert dict(cluster.sql(node, f"select id, value from {TABLE}".encode())) == rows
        bounds = cluster.sql(
            node,
            "select pg_get_expr(c.relpartbound, c.oid) from pg_inherits i join pg_class c on c.oid = i.inhrelid"
            ' where i.inhparent = %s::regclass order by c.relname::text collate "C"',
            (TABLE,),
        )
        assert {b for (b,) in bounds} == {
            f"FOR VALUES WITH (modulus {count}, remainder {k})" for k in range(count)
        }
        eventually(
            "routes are the plain ones",
            lambda n=node: cluster.sql(n, "select * from shardman.drift"),  # type: ignore[misc]
            until=lambda drift: drift == [],
        )
        eventually(
            "nothing is left",
            lambda n=node: cluster.sql(n, "select * from shardman.leftovers"),  # type: ignore[misc]
            until=lambda left: left == [],
        )
    for node, k in cluster.sql(
        0,
        "select owner, shardman.part_number(part_name) from shardman.partitions where relation = %s",
        (TABLE,),
    ):
        data = f"shardman.find_relation(shardman.data_table(shardman.suffixed('{TABLE}', '_{k}')))"
        named = cluster.sql(
            node,
            "select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid"
            f" where i.indrelid = {data}"
            f" union all select stxname::text from pg_statistic_ext where stxrelid = {data}".encode(),
        )
        assert sorted(n for (n,) in named) == [
            f"By.Value_{k}",
            f"Ko.nto_id_value_key_{k}",
            f"Ko.nto_pkey_{k}",
            f"both_of_{k}",
        ]


def test_split_and_merged_under_writers(sharded: Cluster) -> None:
    with writers(sharded) as rows:
        for count in (6, 18):
            done = resize(sharded, count)
            assert done.status == "success" and done.data and done.data["cut_over_ms"], done
    whole(sharded, rows, 18)
    with writers(sharded) as rows:
        done = resize(sharded, 3)
        assert done.status == "success", done
    whole(sharded, rows, 3)
    # What somebody made of the table reads the new partitions.
    assert sharded.value(1, "select count(*) from over_all") == len(rows)


def test_what_is_refused(sharded: Cluster) -> None:
    for count in (3, 4, 5):
        done = resize(sharded, count)
        assert (done.status, done.code) == ("failed", Code.TABLE_UNSUITABLE), done
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        resize(sharded, 4097)
    done = sharded.cmd("select shardman.set_partitions_count('nothing', 2)")
    assert (done.status, done.code) == ("failed", Code.NOT_SHARDED)
    # Names that are taken, on a node that has nothing else of the table.
    sharded.sql(0, 'create table "Läden"."Ko.nto_5_fdw" ()')
    done = resize(sharded, 6)
    assert done.code == Code.TABLE_UNSUITABLE and "Ko.nto_5_fdw" in (done.error or ""), done
    sharded.sql(0, 'drop table "Läden"."Ko.nto_5_fdw"')
    # What would lose what it is made of.
    sharded.sql(2, 'create view "Läden".two as select * from "Läden"."Ko.nto_2"')
    done = resize(sharded, 1)
    assert done.code == Code.TABLE_UNSUITABLE and '"Läden".two' in (done.error or ""), done
    sharded.sql(2, 'drop view "Läden".two')
    sharded.sql(1, "create table keyless (id int)")
    assert (
        sharded.cmd("select shardman.create_hash_partitions(1, 'keyless', 'id', 2, false)").status
        == "success"
    )
    done = sharded.cmd("select shardman.set_partitions_count('keyless', 4)")
    assert done.code == Code.TABLE_UNSUITABLE and "no key" in (done.error or ""), done
    assert sharded.sql(0, "select * from shardman.leftovers") == []


def test_it_gives_way_to_a_transaction_and_to_a_truncation(sharded: Cluster) -> None:
    sharded.sql(1, f"truncate {TABLE}".encode())
    sharded.sql(
        1, f"insert into {TABLE} (id, value) select i, i from generate_series(1, 100) i".encode()
    )
    with sharded.connect(2) as holder:
        holder.autocommit = False
        holder.execute(f"update {TABLE} set value = -value where id <= 50".encode())
        cmd = sharded.submit("select shardman.set_partitions_count(%s, 6)", (TABLE,))
        eventually(
            "it says for whom it waits",
            lambda: sharded.value(
                0, "select waits_for from shardman.commands where id = %s", (cmd,)
            ),
        )
        # Whoever comes now is held up for a moment only.
        begun = time.monotonic()
        with sharded.connect(3) as other:
            other.execute(f"update {TABLE} set value = 7 where id = 77".encode())
        assert time.monotonic() - begun < LONGEST_S
        holder.commit()
    assert sharded.wait(cmd).status == "success"
    want = {i: -i if i <= 50 else i for i in range(1, 101)} | {77: 7}
    whole(sharded, want, 6)
    with sharded.connect(1) as reader:
        # Keeps the cut-over off, while the rest is done.
        reader.autocommit = False
        reader.execute(f"select from {TABLE} limit 1".encode())
        cmd = sharded.submit("select shardman.set_partitions_count(%s, 3)", (TABLE,))
        eventually(
            "it says for whom it waits",
            lambda: sharded.value(
                0, "select waits_for from shardman.commands where id = %s", (cmd,)
            ),
        )
        reader.execute(f"truncate {TABLE}".encode())
        reader.execute(f"insert into {TABLE} (id, value) values (1, 2)".encode())
        reader.commit()
    assert sharded.wait(cmd).status == "success"
    whole(sharded, {1: 2}, 3)


def test_the_shardlord_is_killed(sharded: Cluster) -> None:
    with writers(sharded) as rows:
        with sharded.connect(1) as holder:
            holder.autocommit = False
            holder.execute(f"select from {TABLE} limit 1".encode())
            cmd = sharded.submit("select shardman.set_partitions_count(%s, 9)", (TABLE,))
            eventually(
                "it is about to switch",
                lambda: sharded.value(
                    0,
                    "select count(*) from shardman.cmd_steps where cmd_id = %s and kind = 'split_cut_over'"
                    " and state = 'started'",
                    (cmd,),
                ),
            )
            sharded.stop_lord(kill=True)
            holder.rollback()
        sharded.start_lord()
        done = sharded.wait(cmd)
        assert done.status == "success", done
    whole(sharded, rows, 9)


def test_who_comes_between_the_commits_of_two_nodes_waits(sharded: Cluster) -> None:
    """He comes in by one that has committed, and is sent to one that has not, for partitions with new names and
    for rows that were the last to be written before."""
    assert resize(sharded, 3).status == "success"
    sharded.sql(1, f"truncate {TABLE}".encode())
    release = _release(sharded)
    made: list[int] = []
    with (
        ThreadPoolExecutor(20) as clients,
        armed(sharded.lord_dsn, "set_partitions_count", release) as holder,
    ):
        stopped = threading.Event()
        writer = clients.submit(_insert, sharded, made, stopped)
        cmd = sharded.submit("select shardman.set_partitions_count(%s, 6)", (TABLE,))
        wait_until_stopped(holder, cmd)
        last = made[-18:]
        (gid,) = sharded.sql(1, "select gid from pg_prepared_xacts")[0]
        sharded.sql(1, f"commit prepared '{gid}'".encode())
        changes = [clients.submit(_change, sharded, row) for row in last]
        for node in (2, 3):
            eventually(
                f"clients wait on node {node}",
                lambda n=node: sharded.value(n, "select count(*) from pg_locks where not granted"),  # type: ignore[misc]
            )
        stopped.set()
        holder.execute("select pg_advisory_unlock_all()")
        assert sharded.wait(cmd).status == "success"
        assert [change.result() for change in changes] == [1] * len(last)
        writer.result()
    whole(sharded, {row: int(row in last) for row in made}, 6)


def _release(cluster: Cluster) -> Point:
    """Where a split of this table is about to commit on all nodes."""
    n = cluster.value(0, "select max(n) from shardman.cmd_steps where kind = 'split_release'")
    return Point(n, "", "started")


def _insert(cluster: Cluster, made: list[int], stopped: threading.Event) -> None:
    """Rows without pauses through node 1."""
    with cluster.connect(1) as conn:
        while not stopped.is_set():
            conn.execute(
                f"insert into {TABLE} (id, value) values (%s, 0)".encode(), (len(made) + 1,)
            )
            made.append(len(made) + 1)


def _change(cluster: Cluster, row: int) -> int:
    """How many rows a change of one found."""
    with cluster.connect(1) as conn:
        return conn.execute(f"update {TABLE} set value = 1 where id = %s".encode(), (row,)).rowcount


def test_with_replicas(sharded: Cluster) -> None:
    assert sharded.cmd("select shardman.set_replevel(%s, 1)", (TABLE,)).status == "done"
    with writers(sharded) as rows:
        done = resize(sharded, 18)
        assert done.status == "success", done
        assert stale(sharded) == []
    whole(sharded, rows, 18)
    with writers(sharded) as rows:
        done = resize(sharded, 3)
        assert done.status == "success", done
        assert stale(sharded) == []
    whole(sharded, rows, 3)
    copies = sharded.sql(
        0,
        "select part_name, count(*), count(distinct owner) from shardman.partitions"
        " where relation = %s group by 1",
        (TABLE,),
    )
    assert [(n, d) for _, n, d in copies] == [(2, 2)] * 3
    sharded.stop_node(3)
    done = resize(sharded, 6)
    assert (done.status, done.code) == ("failed", Code.NODE_UNREACHABLE), done
    assert "node 3" in (done.error or "")
    sharded.start_node(3)
    eventually(
        "node 3 is whole", lambda: check(sharded.lord_dsn, patience=30), until=lambda f: f == []
    )


def stale(cluster: Cluster) -> list[object]:
    return cluster.sql(
        0, "select part_name, owner from shardman.partitions where stale_since is not null"
    )
