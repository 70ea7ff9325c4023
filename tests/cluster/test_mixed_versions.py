"""A cluster of servers of two major versions: how one gets from one to the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from shardman.errors import UserError
from shardman.local import Programs, find_programs
from shardman.local.programs import embedded_bin
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster

pytestmark = pytest.mark.server

DEBIAN = "/usr/lib/postgresql/15/bin"
ROWS = 500


def two_versions() -> tuple[Programs, Programs]:
    """Programs of two major versions that are installed here."""
    found = {}
    for place in (None, DEBIAN, embedded_bin()):
        try:
            programs = find_programs(place)
        except UserError:
            continue
        found.setdefault(programs.major, programs)
    if len(found) < 2:
        pytest.skip("needs servers of two versions")
    return found[min(found)], found[max(found)]


@pytest.fixture(scope="module")
def mixed() -> Iterator[Cluster]:
    """Two workers of the newer version, and between them one of the older."""
    old, new = two_versions()
    with closing(Cluster(workers=0, bare=True, pg_bin=new.bin)) as cluster:
        servers = cluster.local.add_servers(3)
        servers[1].programs = old
        cluster.local.up()
        yield cluster


def ok(cluster: Cluster, query: str, *params: object) -> None:
    done = cluster.cmd(query.encode(), params)
    assert done.status in ("success", "done"), done


def test_everything_works_between_versions(mixed: Cluster) -> None:
    versions = [mixed.value(n, "show server_version_num") for n in (1, 2, 3)]
    assert versions[0] == versions[2] != versions[1]
    mixed.sql(
        1, "create table t (id int primary key, n numeric default 0, at timestamptz, doc jsonb)"
    )
    mixed.sql(
        1,
        "insert into t select i, i / 7.0, '2013-01-01'::timestamptz + i * interval '1 h',"
        " jsonb_build_object('i', i) from generate_series(1, %s) i",
        (ROWS,),
    )
    ok(mixed, "select shardman.create_hash_partitions(1, 't', 'id', 3)")
    ok(mixed, "select shardman.set_replevel('t', 1)")
    for node in (1, 2, 3):
        mixed.sql(node, "update t set n = n + 1")
        assert mixed.value(node, "select count(*) from t where doc ->> 'i' = id::text") == ROWS
    for part, src, dest in mixed.sql(
        0,
        "select p.part_name, p.owner, r.owner from shardman.partitions p"
        " join shardman.partitions r using (part_name) where p.prv is null and r.prv is not null",
    ):
        ok(mixed, "select shardman.switch_primary(%s, %s)", part, dest)
        other = ({1, 2, 3} - {src, dest}).pop()
        ok(mixed, "select shardman.move_part(%s, %s)", part, other)
        mixed.sql(src, "update t set n = n + 1")
    assert check(mixed.lord_dsn, data=True) == []


def test_the_other_version_takes_over(mixed: Cluster) -> None:
    mixed.sql(0, "insert into shardman.settings values ('failover_after', '2')")
    total = mixed.value(3, "select sum(n) from t")
    mixed.kill_node(2)
    with mixed.connect(1) as client:
        done = mixed.cmd("select shardman.rm_node(2, true)")
        assert done.status == "success", done
        assert client.execute("select sum(n), count(*) from t").fetchone() == (total, ROWS)
    assert check(mixed.lord_dsn, data=True, patience=20) == []
