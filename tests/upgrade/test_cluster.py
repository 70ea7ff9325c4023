"""A cluster that an earlier release has made is upgraded while it is used."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import psycopg
import pytest

from cluster.writers import Writers
from shardman.commands.registry import COMMANDS
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster, CommandResult
from shardman.testing.waiting import eventually
from upgrade.releases import Release

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(400)]

ROWS = 400
#: Was down when the others were upgraded, having been replaced before: it still has to set aside what it had.
AWAY = 4
#: Cannot be upgraded for a while.
HELD = 3
#: What an installer waits for, see shardman.pg.schema.
HOLD = "begin; lock table shardman.migrations in share mode"
#: What commands that have switched still have to do.
LEFT = """
select l.cmd_type, s.kind, s.error
  from shardman.cmd_log l join shardman.cmd_steps s on s.cmd_id = l.id and s.attempt = l.attempt
 where l.switched and s.phase = 'finish' and s.state <> 'done'
"""
#: Checks of data tables that a dump could not be restored with or that DDL waits for, and those
#: that do not save a scan.
OLD_CHECKS = r"""
select conrelid::regclass from pg_constraint
 where conname = 'shardman_partition' and (not convalidated
       or pg_get_constraintdef(oid) ~ '''\d+''::oid' or pg_get_constraintdef(oid) !~ 'applies_changes')
"""
#: As whom the clerk reaches other nodes.
CLERKS = """
select coalesce(jsonb_agg(distinct o.option_value), '[]')
  from pg_user_mappings m, pg_options_to_table(m.umoptions) o
 where m.usename = 'clerk' and o.option_name = 'user'
"""
#: Partitions with two copies, with their nodes.
PAIRS = """
select p.part_name, p.owner, r.owner from shardman.partitions p join shardman.partitions r using (part_name)
 where p.prv is null and r.prv is not null and r.stale_since is null order by 1
"""


@dataclass
class Old:
    """A cluster as the earlier release has left it, its shardlord ended."""

    cluster: Cluster
    rows: dict[int, int]


@pytest.fixture(scope="module")
def old(release: Release) -> Iterator[Old]:
    with closing(Cluster(workers=4, bare=True)) as cluster:
        release.init(cluster.lord_dsn)
        lord = release.start_lord(cluster.lord_dsn, cluster.local.directory / "log" / "old.log")
        try:
            rows = prepare(cluster)
        finally:
            end(lord)
        yield Old(cluster, rows)


@pytest.fixture
def upgraded(old: Old) -> Cluster:
    """Every node with this version's schema, also where no test before has seen to it."""
    cluster = old.cluster
    if cluster.lord_pid is None:
        cluster.local.init()
        cluster.start_lord()
        cluster.start_node(AWAY)
        new = schema_of(cluster, 0)
        eventually(
            "all follow",
            lambda: {schema_of(cluster, n) for n in cluster.worker_dsns},
            until=lambda s: s == {new},
            seconds=60,
        )
        eventually("nothing is left to do", lambda: cluster.sql(0, LEFT) == [], seconds=60)
    return cluster


def make_clerk(cluster: Cluster) -> None:
    """An ordinary role, that reaches other nodes as 0.1.0 lets it: as their superuser."""
    user = cluster.value(1, "select current_user")
    for node in (0, *cluster.worker_dsns):
        cluster.sql(node, "create role clerk login password 'clerk'")
        cluster.sql(node, "grant select on t to clerk")
    for node in (0, *cluster.worker_dsns):
        eventually(
            f"the clerk has mappings on node {node}",
            lambda node=node: cluster.value(node, CLERKS),
            until=lambda mapped: mapped == [user],
        )


@contextlib.contextmanager
def clerk_reads(cluster: Cluster, node: int) -> Iterator[list[object]]:
    """All rows, again and again, in new sessions and in one that was there before."""
    seen: list[object] = []
    over = threading.Event()

    def read() -> None:
        options = {"user": "clerk", "password": "clerk"}
        with cluster.connect(node, **options) as kept:
            while not over.is_set():
                try:
                    with cluster.connect(node, **options) as fresh:
                        seen.extend(
                            conn.execute("select count(*) from t").fetchone()
                            for conn in (kept, fresh)
                        )
                except psycopg.Error as error:
                    seen.append(str(error))
                over.wait(0.05)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def end(lord: subprocess.Popen[bytes]) -> None:
    lord.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        lord.wait(20)
    if lord.poll() is None:
        lord.kill()
        lord.wait()


def prepare(cluster: Cluster) -> dict[int, int]:
    """A table with replicas; a node that was replaced and has not come back yet. Returns the rows."""
    for dsn in cluster.worker_dsns.values():
        ok(cluster, "select shardman.add_node(%s)", dsn)
    cluster.sql(1, "create table t (id bigserial primary key, value int not null, doc jsonb)")
    rng = random.Random(7)
    rows = {i: rng.randrange(1000) for i in range(1, ROWS + 1)}
    with cluster.connect(1) as conn, conn.cursor().copy("copy t (id, value) from stdin") as copy:
        for row in rows.items():
            copy.write_row(row)
    ok(cluster, "select shardman.create_hash_partitions(1, 't', 'id', 8)")
    ok(cluster, "select shardman.set_replevel('t', 1)")
    make_clerk(cluster)
    cluster.kill_node(AWAY)
    ended = "select status::text from shardman.cmd_log where cmd_type = 'failover'"
    eventually(
        "failover",
        lambda: cluster.sql(0, ended),
        until=lambda s: s in ([("success",)], [("done",)]),
    )
    pending = "select count(*) from shardman.cmd_steps where kind = 'returned' and state <> 'done'"
    assert cluster.value(0, pending) > 0
    return rows


def ok(cluster: Cluster, query: str, *params: object, node_id: int = 0) -> CommandResult:
    done = cluster.wait(cluster.submit(query.encode(), params, node_id=node_id))
    assert done.status in ("success", "done"), (query, done)
    return done


def schema_of(cluster: Cluster, node: int) -> str:
    return str(
        cluster.value(node, "select obj_description('shardman'::regnamespace, 'pg_namespace')")
    )


def metadata(cluster: Cluster, node: int) -> dict[str, int]:
    """The published tables' contents as numbers."""
    tables = cluster.sql(
        0, "select tablename from pg_publication_tables where pubname like 'shardman\\_meta\\_%'"
    )
    return {
        table: cluster.value(
            node,
            "select coalesce(sum(hashtextextended((to_jsonb(t) - 'changed_at')::text, 0)), 0)"
            f" from shardman.{table} t".encode(),
        )
        for (table,) in tables
    }


def test_a_cluster_is_upgraded_while_it_is_used(old: Old) -> None:
    cluster = old.cluster
    before = schema_of(cluster, HELD)
    with (
        Writers(cluster.dsn(1), "t", old.rows, ROWS, pause_s=0.01) as writers,
        clerk_reads(cluster, 2) as seen,
    ):
        with cluster.connect(HELD) as holder:
            holder.execute(HOLD)
            # As docs/operations.md says.
            cluster.local.init()
            cluster.start_lord()
            new = schema_of(cluster, 0)
            assert new != before
            eventually(
                "workers follow",
                lambda: [schema_of(cluster, n) for n in (1, 2)],
                until=lambda s: s == [new] * 2,
            )
            assert schema_of(cluster, HELD) == before
            is_served_meanwhile(cluster)
            assert schema_of(cluster, HELD) == before
        eventually(
            "the one that was held back follows",
            lambda: schema_of(cluster, HELD),
            until=lambda s: s == new,
        )
        cluster.start_node(AWAY)
        eventually(
            "the one that was down follows",
            lambda: schema_of(cluster, AWAY),
            until=lambda s: s == new,
        )
        wanted = metadata(cluster, 0)
        for node in (1, 2, HELD, AWAY):
            eventually(
                f"metadata on node {node}",
                lambda node=node: (metadata(cluster, node), metadata(cluster, 0)),
                until=lambda pair: pair[0] == pair[1],
            )
        assert wanted
        for node in (0, *cluster.worker_dsns):
            eventually(
                f"the clerk has the road login alone on node {node}",
                lambda node=node: cluster.value(node, CLERKS),
                until=lambda mapped: mapped == ["shardman_clerk"],
                seconds=60,
            )
    # Nobody was kept from reading.
    assert len(seen) > 20
    assert {s for s in seen if isinstance(s, str)} == set()
    assert writers.errors == []
    assert writers.done > 100
    assert check(cluster.lord_dsn, data=True, patience=60) == []
    assert cluster.sql(0, LEFT) == []
    for node in (0, *cluster.worker_dsns):
        assert cluster.sql(node, "select * from shardman.servers_in_dumps()") == []
        eventually("checks are made anew", lambda n=node: cluster.sql(n, OLD_CHECKS) == [])
    assert cluster.sql(2, "select id, value from t order by 1") == sorted(writers.rows.items())


def is_served_meanwhile(cluster: Cluster) -> None:
    """A worker with the old schema submits commands and follows routes."""
    ok(cluster, "select shardman.set_zone(1, 'here')", node_id=HELD)
    # On a slow machine one may have been suspended for a moment.
    part, src, dest = eventually(
        "a replica on another worker follows",
        lambda: next((r for r in cluster.sql(0, PAIRS) if {r[1], r[2]} <= {1, 2}), None),
    )
    ok(cluster, "select shardman.switch_primary(%s, %s)", part, dest, node_id=HELD)
    # It has not heard of it; the statements are forwarded.
    route = "select srvname from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver"
    assert cluster.value(HELD, f"{route} where ftrelid = '{part}_fdw'::regclass".encode()) == (
        f"shardman_node_{src}"
    )
    assert cluster.value(HELD, f"select count(*) from {part}".encode()) > 0
    # Nothing is done with functions that are not those of this version.
    refused = cluster.cmd(f"select shardman.move_part('{part}', {HELD})".encode())
    assert refused.status == "failed"
    assert "has the schema of another version" in str(refused.error)


def test_every_verb_runs_afterwards(upgraded: Cluster) -> None:
    cluster = upgraded
    run: set[str] = set()

    def do(query: str, *params: object, node_id: int = 0) -> None:
        ok(cluster, query, *params, node_id=node_id)
        run.add(query.split("shardman.")[1].split("(", maxsplit=1)[0])

    do("select shardman.add_node(%s)", cluster.add_server())
    added = cluster.value(0, "select max(id) from shardman.nodes")
    # Roles are each server's own; what was granted waits for them.
    cluster.sql(added, "create role clerk login")
    do("select shardman.set_zone(%s, 'there')", added, node_id=1)
    do("select shardman.set_zone(%s, null)", added, node_id=AWAY)
    do("select shardman.rebalance('t')", node_id=2)
    do("select shardman.set_sync('t', false)", node_id=HELD)
    do("select shardman.set_sync('t', true)")
    part, src, replica = cluster.sql(0, PAIRS)[0]
    do("select shardman.switch_primary(%s, %s)", part, replica)
    other = min({1, 2, HELD, AWAY} - {src, replica})
    do("select shardman.create_replica(%s, %s)", part, other)
    do("select shardman.rm_replica(%s, %s)", part, src)
    do("select shardman.move_part(%s, %s)", part, src)
    do("select shardman.set_replevel('t', 0)")
    do("select shardman.set_replevel('t', 1)")
    do("select shardman.suspend_replicas(%s, %s)", *cluster.sql(0, PAIRS)[0][1:])
    assert check(cluster.lord_dsn, patience=60) == []
    cluster.sql(2, "create table u (id int primary key)")
    do("select shardman.create_hash_partitions(2, 'u', 'id', 4)")
    cluster.sql(1, "alter table u add column late int")
    cluster.sql(2, "alter table t add column late int default 3")
    do("select shardman.refresh_table('u')", node_id=1)
    do("select shardman.sync_roles()")
    do("select shardman.create_restore_point('upgraded')", node_id=1)
    do("select shardman.set_partitions_count('u', 2)", node_id=2)

    cluster.sql(1, "create table w (id int primary key)")
    do("select shardman.create_hash_partitions(1, 'w', 'id', 2)")
    do("select shardman.colocate('w', 'u')", node_id=1)
    do("select shardman.uncolocate('w')", node_id=2)
    do("select shardman.unshard_table('w', 2)", node_id=1)
    do("select shardman.rename_table('u', 'uu')", node_id=1)
    do("select shardman.drop_table('uu')")
    do("select shardman.restore_layout('uu', 2)", node_id=1)
    do("select shardman.forget_layout('uu')", node_id=2)
    do("select shardman.drop_aside(1)", node_id=2)
    cluster.sql(2, "create table codes (id int primary key)")
    do("select shardman.create_shared_table('codes', 2)", node_id=1)
    cluster.sql(1, "insert into codes values (1), (3)")
    cluster.sql(0, "create index t_late on only t (late)")
    do("select shardman.build_index('t', 't_late')", node_id=1)
    do(
        "select shardman.add_foreign_key('t', 'fk', 'foreign key (late) references codes (id)')",
        node_id=2,
    )
    do("select shardman.drop_foreign_key('t', 'fk')", node_id=1)
    do("select shardman.unshare_table('codes', 1)", node_id=2)
    do("select shardman.maintain(%s, 600)", 1, node_id=2)
    do("select shardman.maintain(%s, maintain => false)", 1)
    do("select shardman.drain_node(%s)", added)
    do("select shardman.rm_node(%s)", added)
    cluster.kill_node(AWAY)
    do("select shardman.failover(%s)", AWAY)
    cluster.start_node(AWAY)
    assert run == COMMANDS.keys()
    assert check(cluster.lord_dsn, data=True, patience=60) == []
