"""rm_node: the node goes, its rows stay on it, and nobody is left waiting for it."""

from __future__ import annotations

import re
import time

import psycopg
import pytest
from psycopg import sql

from cluster.pictures import picture
from crash.stops import Point, armed, wait_until_stopped
from shardman.nodes.invariants import check
from shardman.nodes.status import read
from shardman.testing.cluster import Cluster, CommandResult
from shardman.testing.waiting import eventually

ROWS = 300


@pytest.fixture(scope="module")
def ready(cluster: Cluster) -> Cluster:
    """A table whose six partitions are spread over three workers."""
    cluster.sql(1, "create table accounts (id bigint primary key, v text)")
    cluster.sql(1, "insert into accounts select i, 'v' || i from generate_series(1, %s) i", (ROWS,))
    done = cluster.cmd("select shardman.create_hash_partitions(1, 'accounts', 'id', 6)")
    assert done.status == "success", done
    return cluster


def rm(cluster: Cluster, node: int, force: bool = False) -> CommandResult:
    return cluster.cmd("select shardman.rm_node(%s, %s)", (node, force))


def count(cluster: Cluster, node: int, table: str) -> int:
    query = sql.SQL("select count(*) from {}").format(sql.Identifier(table))
    return int(cluster.value(node, query))


def parts_on(cluster: Cluster, node: int) -> list[str]:
    rows = cluster.sql(
        0,
        "select part_name from shardman.partitions where owner = %s order by part_name",
        (node,),
    )
    return [str(row[0]) for row in rows]


def traces_of(cluster: Cluster, node: int, at: int) -> set[str]:
    """What another node still has for a node."""
    return {
        each
        for each in picture(cluster.dsn(at))
        if re.match(rf"(server|mapping) shardman_node_{node}( |_c)", each)
        or re.match(rf"slot shardman_\w+_{node}$", each)
    }


def test_a_node_with_partitions_is_not_removed(ready: Cluster) -> None:
    done = rm(ready, 3)
    assert done.status == "failed"
    assert "node 3 holds 2 partitions (" + ", ".join(parts_on(ready, 3)) + ")" in (done.error or "")
    assert check(ready.lord_dsn, data=True) == []


def test_an_emptied_node_leaves_no_trace_on_the_others(ready: Cluster) -> None:
    node = ready.add_worker()
    assert ready.cmd("select shardman.move_part('accounts_0', %s)", (node,)).status == "success"
    ready.sql(node, "create table mine as select 42 as answer")
    assert ready.cmd("select shardman.move_part('accounts_0', 1)").status == "success"
    done = rm(ready, node)
    assert done.status == "success", done
    for other in (0, 1, 2, 3):
        assert traces_of(ready, node, other) == set()
    left = picture(ready.dsn(node))
    assert "schema shardman" not in left
    assert not {each for each in left if each.startswith(("subscription", "slot", "publication"))}
    assert ready.value(node, "select answer from mine") == 42
    # Its routes stay, and still lead to the others.
    assert ready.value(node, "select count(*) from accounts") == ROWS
    assert check(ready.lord_dsn, data=True) == []
    assert ready.sql(
        1, "select worker_status::text from shardman.nodes where id = %s", (node,)
    ) == [("removed",)]
    assert rm(ready, node).status == "failed"


def test_removed_and_added_again_it_gets_another_id(ready: Cluster) -> None:
    removed = ready.value(0, "select max(id) from shardman.nodes where worker_status = 'removed'")
    dsn = ready.dsn(removed)
    cmd = ready.submit("select shardman.add_node(%s)", (dsn,))
    done = ready.wait(cmd)
    assert done.status == "success", done
    new = ready.value(0, "select max(id) from shardman.nodes")
    assert new == removed + 1
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert conn.execute("select shardman.my_id()").fetchone() == (new,)
        assert conn.execute("select count(*) from accounts").fetchone() == (ROWS,)
        assert conn.execute("select answer from mine").fetchone() == (42,)
    assert check(ready.lord_dsn, data=True) == []
    assert rm(ready, new).status == "success"


def test_a_dead_node_needs_force_and_then_goes_quickly(ready: Cluster) -> None:
    node = ready.add_worker()
    # It dies in the middle of a move, so that something is left to be undone on it.
    point = Point(6, "", "started")
    with armed(ready.lord_dsn, "move_part", point) as holder:
        cmd = ready.submit("select shardman.move_part('accounts_0', %s)", (node,))
        wait_until_stopped(holder, cmd)
        ready.stop_node(node, "immediate")
    assert ready.wait(cmd).status == "failed"
    left = (
        "select count(*) from shardman.cmd_steps where state = 'started' and kind <> 'clean_node'"
    )
    assert ready.value(0, left) > 0
    done = rm(ready, node)
    assert done.status == "failed"
    assert f"node {node} cannot be reached" in (done.error or "")
    begun = time.monotonic()
    done = rm(ready, node, force=True)
    assert done.status == "success", done
    assert time.monotonic() - begun < 20
    assert f"Left for later: take our objects off node {node}" in (done.result or "")
    for other in (0, 1, 2, 3):
        assert traces_of(ready, node, other) == set()
    eventually(
        "nothing of it is left",
        lambda: ready.value(0, left),
        until=lambda found: found == 0,
        seconds=20,
    )
    assert check(ready.lord_dsn, data=True) == []
    # It comes back, believes that it is a member still, and is told.
    ready.start_node(node)
    eventually(
        "it is no member any more",
        lambda: ready.value(node, "select to_regclass('shardman.local')"),
        until=lambda found: found is None,
        seconds=30,
    )
    cmd = ready.submit("select shardman.add_node(%s)", (ready.dsn(node),))
    done = ready.wait(cmd)
    assert done.status == "success", done
    assert check(ready.lord_dsn, data=True) == []
    new = ready.value(0, "select max(id) from shardman.nodes")
    assert rm(ready, new).status == "success"


def test_a_node_whose_schema_somebody_dropped(ready: Cluster) -> None:
    node = ready.add_worker()
    assert ready.cmd("select shardman.move_part('accounts_0', %s)", (node,)).status == "success"
    assert ready.cmd("select shardman.move_part('accounts_0', 1)").status == "success"
    ready.sql(node, "drop schema shardman cascade")
    found = {p.subject: p.what for p in read(ready.lord_dsn).problems}
    assert found[f"node {node}"] == "its database has no schema shardman any more"
    done = rm(ready, node)
    assert done.code == "not_a_member", done
    done = rm(ready, node, force=True)
    assert done.status == "success", done
    for other in (0, 1, 2, 3):
        assert traces_of(ready, node, other) == set()
    assert check(ready.lord_dsn, data=True) == []
    done = ready.wait(ready.submit("select shardman.add_node(%s)", (ready.dsn(node),)))
    assert done.status == "success", done
    assert count(ready, node, "accounts") == ROWS


def test_what_forced_removal_makes_unreachable_is_said_and_fails_at_once(ready: Cluster) -> None:
    """Last, for it loses rows."""
    lost = parts_on(ready, 3)
    rows = count(ready, 3, f"{lost[0]}_data")
    done = rm(ready, 3, force=True)
    assert done.status == "success", done
    assert f"that may take over: 2 partitions ({', '.join(lost)})." in (done.result or "")
    begun = time.monotonic()
    for node in (0, 1, 2):
        with pytest.raises(psycopg.Error, match="node 3 was removed from the cluster"):
            ready.sql(node, "select count(*) from accounts")
        with pytest.raises(psycopg.Error, match="node 3 was removed from the cluster"):
            ready.sql(node, "delete from accounts")
    assert time.monotonic() - begun < 20
    problems = dict(ready.sql(0, "select subject, problem from shardman.status_problems"))
    for part in lost:
        assert "rows cannot be reached" in problems.pop(part)
    assert problems == {}
    # The rows are where they were.
    assert count(ready, 3, f"{lost[0]}_data") == rows
    # Those of the other partitions can be read and written.
    assert count(ready, 2, parts_on(ready, 1)[0]) > 0
    # Added again, it keeps them under other names, and is a node like any other.
    cmd = ready.submit("select shardman.add_node(%s)", (ready.dsn(3),))
    done = ready.wait(cmd)
    assert done.status == "success", done
    assert f"{lost[0]}_aside_c{cmd}" in (done.result or "")
    assert count(ready, 3, f"{lost[0]}_aside_c{cmd}") == rows
    with pytest.raises(psycopg.Error, match="node 3 was removed from the cluster"):
        ready.sql(3, "select count(*) from accounts")
