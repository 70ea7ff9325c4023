"""Whoever looks every second keeps his sessions: what becomes of them when servers and roles do not stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from shardman.errors import UserError
from shardman.nodes import kept
from shardman.nodes.kept import KeptReach
from shardman.nodes.reach import NodeError
from shardman.nodes.status import COMPARED_EVERY_S, Watch
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from shardman.testing.faults import freeze

PID = "select pg_backend_pid() as pid"


@pytest.fixture
def reach(cluster: Cluster) -> Iterator[KeptReach]:
    with KeptReach(cluster.lord_dsn, "shardman test") as reach:
        yield reach


def pids(reach: KeptReach) -> dict[int, int | str]:
    """The server process of each node's session, or why there is none."""
    found = reach.everywhere(lambda _, s: int(s.execute(PID).fetchone()["pid"]))
    return {n: a.problem if isinstance(a, NodeError) else a for n, a in found.items()}


def test_they_are_the_same_at_the_next_look(reach: KeptReach) -> None:
    first = pids(reach)
    reach.follow()
    assert pids(reach) == first
    assert len(first) == 4


def test_that_the_role_may_come_in_is_proved_again(
    reach: KeptReach, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, others = reach.here.info.backend_pid, pids(reach)
    monkeypatch.setattr(kept, "RENEWED_S", 0.0)
    reach.follow()
    assert reach.here.info.backend_pid != here
    assert pids(reach) == others
    monkeypatch.setattr(kept, "KEPT_S", 0.0)
    assert not set(pids(reach).values()) & set(others.values())


def test_a_server_that_was_started_anew_is_up(cluster: Cluster, reach: KeptReach) -> None:
    first = pids(reach)
    cluster.stop_node(2)
    assert "cannot reach" in str(pids(reach)[2])
    cluster.start_node(2)
    assert isinstance(pids(reach)[2], int)
    cluster.stop_node(2)
    cluster.start_node(2)
    # In the session of before, which is no more, nothing was asked meanwhile.
    again = pids(reach)
    assert isinstance(again[2], int)
    assert [again[n] for n in (0, 1, 3)] == [first[n] for n in (0, 1, 3)]


def test_one_that_hangs_is_given_up(
    cluster: Cluster, reach: KeptReach, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pids(reach)
    monkeypatch.setattr(kept, "PATIENCE_S", 1.0)
    go_on = freeze(cluster, 3)
    try:
        told = pids(reach)
    finally:
        go_on()
    assert isinstance(told[3], str)
    assert [told[n] for n in (0, 1, 2)] == [first[n] for n in (0, 1, 2)]
    assert isinstance(pids(reach)[3], int)


def test_the_node_that_was_named_hangs(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "PATIENCE_S", 1.0)
    with closing(Watch(cluster.worker_dsns[1])) as watch:
        watch.read()
        go_on = freeze(cluster, 1)
        try:
            with pytest.raises(UserError, match="cannot reach"):
                watch.read()
        finally:
            go_on()
        assert watch.read()[0].nodes


def test_what_a_query_of_before_gives_is_another_thing(reach: KeptReach, cluster: Cluster) -> None:
    """As behind an upgrade: a prepared statement of the old view fails in its session."""
    cluster.sql(1, "create view seen as select 1 as a")
    look = lambda _, s: s.execute("select * from seen", prepare=True).fetchall()  # noqa: E731
    assert reach.everywhere(look, [1]) == {1: [{"a": 1}]}
    cluster.sql(1, "drop view seen; create view seen as select 'two' as b")
    assert reach.everywhere(look, [1]) == {1: [{"b": "two"}]}
    cluster.sql(1, "drop view seen")


def test_a_role_that_may_not_come_in_any_more_sees_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in (0, 1, 2, 3):
        cluster.sql(node, "create role passer_by login password 'x' in role shardman_viewer")
    dsn = make_conninfo(cluster.lord_dsn, user="passer_by", password="x")
    with closing(Watch(dsn)) as watch:
        watch.read()
        cluster.sql(0, "alter role passer_by nologin")
        monkeypatch.setattr(kept, "RENEWED_S", 0.0)
        with pytest.raises(UserError, match="not permitted to log in"):
            watch.read()
    for node in (0, 1, 2, 3):
        cluster.sql(node, "drop role passer_by")


def test_rights_that_are_taken_away_are_so_at_once(cluster: Cluster) -> None:
    for node in (0, 1, 2, 3):
        cluster.sql(node, "create role guest login password 'x' in role shardman_viewer")
    dsn = make_conninfo(cluster.lord_dsn, user="guest", password="x")
    with closing(Watch(dsn)) as watch:
        watch.read()
        for node in (0, 1, 2, 3):
            cluster.sql(node, "revoke shardman_viewer from guest")
        with pytest.raises(UserError, match=r"not allowed|permission denied"):
            watch.read()
    for node in (0, 1, 2, 3):
        cluster.sql(node, "drop role guest")


def test_a_difference_is_found_and_gone_again(cluster: Cluster) -> None:
    """Though it is not looked for each time."""
    with closing(Watch(cluster.lord_dsn)) as watch:

        def problems() -> str:
            return " ".join(str(f) for f in watch.read()[0].problems)

        cluster.sql(1, "create table t (id int primary key, v int)")
        made = cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 3)")
        assert made.status == "success", made
        problems()
        with psycopg.connect(cluster.dsn(2), autocommit=True) as node:
            node.execute("set shardman.ddl = 'here'")
            node.execute("alter table t alter v set default 7")
            eventually("it is said", problems, seconds=3 * COMPARED_EVERY_S)
            node.execute("alter table t alter v drop default")
        eventually("it is gone", problems, until=lambda t: not t, seconds=3 * COMPARED_EVERY_S)
