"""A channel is believed while it delivers: whatever somebody does to its objects, its replicas are no copies
from then on, and are made whole again without anybody asking."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from shardman.nodes import status
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

ROWS = 200
#: failover_after, what the watcher adds, and what a busy machine does.
WAIT_S = 20.0


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    """A table of three partitions with a replica each, and another one whose replica comes by the first one's
    channel."""
    for name in ("acc", "other"):
        table = sql.Identifier(name)
        create = sql.SQL("create table {} (id int primary key, v int not null default 0)")
        cluster.sql(1, create.format(table))
        fill = sql.SQL("insert into {} (id) select generate_series(1, {})")
        cluster.sql(1, fill.format(table, ROWS))
    well(cluster, "select shardman.create_hash_partitions(1, 'acc', 'id', 3)")
    well(cluster, "select shardman.set_replevel('acc', 1)")
    well(cluster, "select shardman.create_hash_partitions(1, 'other', 'id', 1)")
    first = links(cluster)[0]
    if (
        cluster.value(0, "select owner from shardman.partitions where part_name = 'other_0'")
        != first.src
    ):
        well(cluster, f"select shardman.move_part('other_0', {first.src})")
    well(cluster, f"select shardman.create_replica('other_0', {first.dest})")
    return cluster


def well(cluster: Cluster, command: str) -> None:
    done = cluster.cmd(sql.SQL(command))  # type: ignore[arg-type]
    assert done.status in ("success", "done"), done


@dataclass(frozen=True)
class Link:
    """A partition, the nodes of its primary and of its replica, and the channel between them."""

    part: str
    src: int
    dest: int
    channel: str


def links(cluster: Cluster) -> list[Link]:
    """Each partition's: no two have the same nodes."""
    found = cluster.sql(
        0,
        "select p.part_name, p.owner, r.owner, format('shardman_%s_%s_%s', l.cluster, p.owner, r.owner)"
        "  from shardman.local l, shardman.partitions p join shardman.partitions r using (part_name)"
        " where p.prv is null and r.prv is not null and p.relation = 'acc' order by 1",
    )
    assert len({row[1:3] for row in found}) == len(found) == 3
    return [Link(*row) for row in found]


@dataclass(frozen=True)
class Damage:
    """What a clumsy administrator does, on the channel's source or destination, and what is said of it."""

    statement: LiteralString
    said: str
    on_source: bool = True

    def do(self, cluster: Cluster, link: Link) -> None:
        where = link.src if self.on_source else link.dest
        with cluster.connect(where, options="-c shardman.ddl=here") as node:
            node.execute(
                sql.SQL(self.statement).format(
                    channel=sql.Identifier(link.channel),
                    data=sql.Identifier(f"{link.part}_data"),
                )
            )


#: Those of a row are done at once, each to another channel.
DAMAGES = [
    (
        Damage("drop publication {channel}", "its publication is missing"),
        Damage("alter publication {channel} drop table {data}", "lacks the table"),
        Damage(
            "alter publication {channel} drop table {data};"
            " alter publication {channel} add table {data} where (id > 9)",
            "has a filter",
        ),
    ),
    (
        Damage("alter publication {channel} set (publish = 'insert')", "does not let through"),
        Damage(
            "alter subscription {channel} set publication nothing with (refresh = false)",
            "does not take what",
            on_source=False,
        ),
        Damage("drop table {data}", "the replica's table is missing", on_source=False),
    ),
    (
        Damage(
            "alter publication {channel} drop table {data};"
            " alter publication {channel} add table {data} (id)",
            "leaves columns",
        ),
        Damage(
            "alter table {data} disable trigger shardman_read_only", "nothing keeps others", False
        ),
        Damage("alter subscription {channel} disable", "its subscription is disabled", False),
    ),
]


@pytest.mark.parametrize("damages", DAMAGES, ids=["objects", "flags", "guards"])
def test_what_differs_is_no_copy_and_is_mended(acc: Cluster, damages: tuple[Damage, ...]) -> None:
    last = acc.value(0, "select max(id) from shardman.cmd_log")
    for damage, link in zip(damages, links(acc), strict=True):
        damage.do(acc, link)
    acc.sql(1, "update acc set v = v + 1")
    reasons = "select reason from shardman.cmd_log where cmd_type = 'suspend_replicas' and id > %s"
    given_up = eventually(
        "the replicas are given up",
        lambda: acc.sql(0, reasons + " and status = 'success'", (last,)),
        until=lambda found: len(found) == len(damages),
        seconds=30,
    )
    for damage in damages:
        # Its beat may be missed first.
        assert any(damage.said in reason or "did not arrive" in reason for (reason,) in given_up), (
            damage,
            given_up,
        )
    eventually(
        "every replica follows",
        lambda: acc.sql(
            0, "select part_name from shardman.partitions where stale_since is not null"
        ),
        until=lambda stale: not stale,
    )
    assert check(acc.lord_dsn, data=True) == []


STALE = "select part_name from shardman.partitions where stale_since is not null order by 1"
GIVEN_UP = """
select shardman.option(id, 'relation', 3), reason from shardman.cmd_log
 where cmd_type = 'suspend_replicas' and id > %s
"""


def whole(cluster: Cluster) -> None:
    eventually("every replica follows", lambda: cluster.sql(0, STALE), until=lambda rows: not rows)


def renew(cluster: Cluster, link: Link) -> None:
    """Without waiting until the shardlord tries again what has failed again and again."""
    cluster.cmd("select shardman.create_replica(%s, %s)", (link.part, link.dest))
    whole(cluster)


@contextmanager
def harmless_to_others(cluster: Cluster, link: Link) -> Iterator[None]:
    """Meanwhile the replicas of another table on the same channel go on, and commits wait for them."""
    last = cluster.value(0, "select max(id) from shardman.cmd_log")
    # Of whatever was before.
    whole(cluster)
    yield
    found = eventually(
        "the replica is given up",
        lambda: cluster.sql(0, GIVEN_UP, (last,)),
        until=lambda rows: bool(rows),
    )
    assert {relation for relation, _ in found} == {"acc"}, found
    begun = time.monotonic()
    cluster.sql(link.src, "update other set v = v + 1")
    assert time.monotonic() - begun < WAIT_S
    assert "other_0" not in [part for (part,) in cluster.sql(0, STALE)]


def test_an_owner_who_takes_his_key_away_harms_only_himself(acc: Cluster) -> None:
    link = links(acc)[0]
    data = sql.Identifier(f"{link.part}_data")
    key = sql.SQL("alter table {} {} constraint {} {}")
    name = sql.Identifier(f"{link.part}_key")
    add = key.format(data, sql.SQL("add"), name, sql.SQL("primary key (id)"))
    given = acc.value(
        link.src,
        "select conname from pg_constraint where contype = 'p' and conrelid = %s::regclass",
        (f"{link.part}_data",),
    )
    with acc.connect(link.src, options="-c shardman.ddl=here") as owner:
        with harmless_to_others(acc, link):
            owner.execute(key.format(data, sql.SQL("drop"), sql.Identifier(given), sql.SQL("")))
            owner.execute(sql.SQL("insert into {0} select * from {0} limit 1").format(data))
        told = eventually(
            "it is said why",
            lambda: [str(p) for p in status.read(acc.lord_dsn).problems],
            until=lambda told: any("could not follow" in each for each in told),
        )
        assert any(
            f"the replica of {link.part} on node {link.dest} could not follow its primary on node {link.src}:"
            " the primary's table lacks PRIMARY KEY (id)" in each
            for each in told
        ), told
        once = "delete from {0} a using {0} b where a.id = b.id and a.ctid > b.ctid"
        owner.execute(sql.SQL(once).format(data))
        owner.execute(add)
    renew(acc, link)
    assert check(acc.lord_dsn, data=True) == []


def test_what_is_written_into_a_replica_harms_only_its_table(acc: Cluster) -> None:
    """Where nothing can be compared: the worker has failed before anything was seen."""
    link = links(acc)[0]
    data = sql.Identifier(f"{link.part}_data")
    taken = (
        "select i from generate_series(1000, 2000) i"
        " where satisfies_hash_partition('acc'::regclass, 3, %s, i) limit 1"
    )
    row = acc.value(0, taken, (int(link.part[-1]),))
    insert = sql.SQL("insert into {} (id) values ({})")
    with harmless_to_others(acc, link):
        with acc.connect(link.dest) as node:
            node.execute("set session_replication_role = replica")
            node.execute(insert.format(data, sql.Literal(row)))
        acc.sql(link.src, insert.format(data, sql.Literal(row)))
    renew(acc, link)
    acc.sql(link.src, sql.SQL("delete from {} where id > 900").format(data))
    assert check(acc.lord_dsn, data=True) == []


def test_rows_that_were_dropped_come_back_from_a_replica(acc: Cluster) -> None:
    link = links(acc)[0]
    acc.sql(1, "update acc set v = v + 1")
    failover = "select shardman.failover({}, part_name => {})"
    again = sql.SQL(failover).format(sql.Literal(link.src), sql.Literal(link.part))
    refused = acc.cmd(again)
    assert refused.status == "failed", refused
    assert "has the rows" in str(refused.error)
    acc.sql(
        link.src,
        sql.SQL("set shardman.ddl = 'here'; drop table {}").format(
            sql.Identifier(f"{link.part}_data")
        ),
    )
    for node in (0, 1, 2, 3):
        with pytest.raises(psycopg.Error, match="shardman_missing"):
            acc.sql(node, "select count(*) from acc")
    done = acc.cmd(again)
    assert done.status == "success", done
    for node in (0, 1, 2, 3):
        assert acc.sql(node, "select count(*), sum(id), count(distinct v) from acc") == [
            (ROWS, ROWS * (ROWS + 1) // 2, 1)
        ]
    acc.cmd("select shardman.set_replevel('acc', 1)")
    assert check(acc.lord_dsn, data=True) == []


def test_columns_that_differ_are_found(acc: Cluster) -> None:
    here = "-c shardman.ddl=here"
    link = links(acc)[0]
    acc.sql(1, "create index on acc (v)")
    # While a command is at work on a table, nodes may differ.
    eventually("the lord knows", lambda: not acc.commands_left())
    with acc.connect(2, options=here) as node:
        node.execute("alter table acc add column more int")
    name = "select indexrelid::regclass::text from pg_index where indrelid = %s::regclass"
    name += " and pg_get_indexdef(indexrelid) like '%%btree (v)'"
    index = acc.value(link.dest, name, (f"{link.part}_data",))  # type: ignore[arg-type]
    with acc.connect(link.dest, options=here) as node:
        node.execute(f"drop index {index}".encode())
    for found in (check(acc.lord_dsn, patience=0), status.read(acc.lord_dsn).problems):
        told = [str(f) for f in found]
        assert any(f.startswith("acc on node 2: its columns differ") for f in told), told
        way = f"create index on {link.part}_data USING btree (v)"
        assert any(f.startswith(f"{link.part} on node {link.dest}") and way in f for f in told)
    alone = f"set shardman.ddl = 'here'; create index on {link.part}_data (v)"
    acc.sql(link.dest, alone)  # type: ignore[arg-type]
    with acc.connect(2, options=here) as node:
        node.execute("alter table acc drop column more")
    assert check(acc.lord_dsn) == []
    assert status.read(acc.lord_dsn).problems == ()


@contextmanager
def writing(cluster: Cluster) -> Iterator[None]:
    """Somebody writes all the time, through every node."""
    ended = threading.Event()

    def write(node: int) -> None:
        with cluster.connect(node) as conn:
            while not ended.is_set():
                for row in range(node, ROWS, 7):
                    with contextlib.suppress(psycopg.errors.SerializationFailure):
                        conn.execute("update acc set v = v + 1 where id = %s", (row,))

    threads = [threading.Thread(target=write, args=(node,)) for node in (1, 2, 3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


SET = """
insert into shardman.settings values (%s, %s) on conflict (name) do update set value = excluded.value
"""


def test_a_row_that_a_replica_has_lost_comes_back(acc: Cluster) -> None:
    link = links(acc)[0]
    acc.sql(0, SET, ("scrub_repair", "off"))
    acc.sql(0, SET, ("scrub_every", "1"))
    with writing(acc):
        assert check(acc.lord_dsn, data=True, patience=0) == []
        with acc.connect(link.dest) as conn:
            conn.execute("set session_replication_role = replica")
            data = sql.Identifier(f"{link.part}_data")
            query = sql.SQL("delete from {0} where id = (select max(id) from {0})")
            assert conn.execute(query.format(data)).rowcount == 1
        (finding,) = check(acc.lord_dsn, data=True, patience=0)
        assert finding.subject == f"{link.part} on node {link.dest}"
        assert "at least 1 differ" in finding.what
        assert f"shardman suspend-replicas {link.src} {link.dest}" in finding.hint
        eventually(
            "the scrub has found it",
            lambda: [str(f) for f in status.read(acc.lord_dsn).problems],
            until=lambda told: any("the replica differed from its primary" in f for f in told),
        )
        acc.sql(0, SET, ("scrub_repair", "on"))
        compared = "select differing, last_difference from shardman.status_comparisons where part_name = %s"
        eventually(
            "it is mended, and compared again",
            lambda: acc.sql(0, compared, (link.part,)),
            until=lambda rows: bool(rows) and rows[0][0] == 0 and rows[0][1] is not None,
        )
        assert check(acc.lord_dsn, data=True) == []
    assert status.read(acc.lord_dsn).problems == ()
    # The others were compared too, and nothing was found.
    found = acc.sql(
        0, "select part_name, compared_at, last_difference from shardman.status_comparisons"
    )
    assert {part for part, at, last in found if at is not None and last is None} == {
        "other_0",
        *(each.part for each in links(acc) if each.part != link.part),
    }


def test_a_copy_that_is_not_proven_does_not_take_over(acc: Cluster) -> None:
    link = links(acc)[0]
    last = acc.value(0, "select max(id) from shardman.cmd_log")
    acc.stop_lord(kill=True)
    Damage("alter table {data} disable trigger shardman_read_only", "", on_source=False).do(
        acc, link
    )
    acc.stop_node(link.src, "immediate")
    acc.start_lord()
    ended = eventually(
        "the node is replaced",
        lambda: acc.sql(
            0,
            "select status::text from shardman.cmd_log"
            " where cmd_type = 'failover' and ended_at is not null and id > %s",
            (last,),
        ),
    )
    # No success: a partition cannot be read.
    assert ended[0][0] == "done"
    owner = "select owner from shardman.partitions where part_name = %s and prv is null"
    assert acc.value(0, owner, (link.part,)) == link.src
    acc.start_node(link.src)
    eventually(
        "every replica follows",
        lambda: acc.sql(
            0, "select part_name from shardman.partitions where stale_since is not null"
        ),
        until=lambda stale: not stale,
    )
    assert check(acc.lord_dsn, data=True) == []
