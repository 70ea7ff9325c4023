"""A node that was declared dead, and is back, while somebody keeps what it had from being set aside."""

from __future__ import annotations

import time

import psycopg
import pytest

from shardman.lord.watchers.rebuild import LOOK_EVERY_S
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.faults import freeze
from shardman.testing.waiting import eventually

ROWS = 300
PENDING = """
select count(*) from shardman.cmd_steps s join shardman.cmd_log l on l.id = s.cmd_id and l.attempt = s.attempt
 where s.kind = 'returned' and s.state in ('planned', 'started') and l.switched
"""


def pending(cluster: Cluster, wanted: int) -> None:
    """Waits until so many nodes have something to set aside."""
    eventually(
        f"{wanted} nodes have something to set aside",
        lambda: cluster.value(0, PENDING),
        until=lambda found: found == wanted,
        seconds=40,
    )


def written(cluster: Cluster, node: int, key: int, v: int) -> bool:
    """Whether a write is acknowledged; a commit that waits for ever is ended by the shardlord."""
    try:
        with cluster.connect(node) as conn:
            conn.execute("update acc set v = %s where id = %s", (v, key))
    except psycopg.Error:
        return False
    return True


def settled(cluster: Cluster) -> bool:
    """Whether every copy is up to date and no command is left that makes one."""
    stale = "select count(*) from shardman.partitions where stale_since is not null"
    return not cluster.value(0, stale) and not cluster.commands_left()


@pytest.fixture(scope="module")
def ready(cluster: Cluster) -> Cluster:
    """A table with two replicas, and one without that has partitions on every node."""
    cluster.add_worker()
    for table in ("acc", "solo"):
        create = f"create table {table} (id int primary key, v int not null default 0)"
        cluster.sql(1, create.encode())
        insert = f"insert into {table} select i from generate_series(1, {ROWS}) i"
        cluster.sql(1, insert.encode())
        done = cluster.cmd("select shardman.create_hash_partitions(1, %s, 'id', 4)", (table,))
        assert done.status == "success", done
    assert cluster.cmd("select shardman.set_replevel('acc', 2)").status == "done"
    return cluster


# A write that hangs is ended at the shardlord's next turn.
@pytest.mark.timeout(900)
def test_what_is_not_set_aside_yet_acknowledges_nothing(ready: Cluster) -> None:
    """Two nodes die at once, so each failover leaves something to be done on the other's dead node."""
    dead, other = (2, 3), 4
    owned = "select part_name from shardman.partitions where relation = %s and owner = %s and prv is null"
    parts = {node: ready.value(0, owned, ("acc", node)) for node in dead}
    keys = {n: ready.value(n, f"select min(id) from {p}_data".encode()) for n, p in parts.items()}
    solo = ready.value(0, owned, ("solo", dead[0]))
    # A session would be ended; what is prepared stays.
    for node, part in parts.items():
        with psycopg.connect(ready.dsn(node), autocommit=True) as conn:
            conn.execute("begin")
            conn.execute(f"select count(*) from {part}".encode())
            conn.execute("prepare transaction 'held'")

    thaws = [freeze(ready, node) for node in dead]
    try:
        pending(ready, 2)
        for key in keys.values():
            eventually(
                f"row {key} is written elsewhere",
                lambda key=key: written(ready, other, key, 1),
                seconds=40,
            )
    finally:
        for thaw in thaws:
            thaw()
    # Nothing may shorten the standby names of the old primaries, nor open the way from them to the new ones.
    assert not any(written(ready, node, key, 100) for node, key in keys.items())
    done = ready.cmd("select shardman.set_sync('solo', false)")
    assert done.status == "success", done
    for node, part in parts.items():
        assert ready.value(0, "select shardman.not_set_aside(%s)", (node,)) == part
    assert not any(written(ready, node, key, 100) for node, key in keys.items())
    assert ready.value(0, PENDING) == 2
    # The shardlord makes no replica there again meanwhile: it would have to be refused.
    time.sleep(2 * LOOK_EVERY_S)
    refused = "select count(*) from shardman.cmd_log where error like '%set aside yet%'"
    assert ready.value(0, refused) == 0
    # No primary comes to a node whose commits wait for replicas that come no more.
    elsewhere = ready.value(0, owned, ("solo", other))
    done = ready.cmd("select shardman.move_part(%s, %s)", (elsewhere, dead[0]))
    assert done.status == "failed"
    assert "node 2 has not set aside yet what other nodes have taken over" in (done.error or "")
    for key in keys.values():
        assert ready.value(other, "select v from acc where id = %s", (key,)) == 1

    for node in dead:
        with ready.connect(node, options="-c synchronous_commit=local") as conn:
            conn.execute("rollback prepared 'held'")
    pending(ready, 0)
    for node, key in keys.items():
        eventually(
            f"node {node} shows what was written elsewhere",
            lambda node=node, key=key: ready.value(node, "select v from acc where id = %s", (key,)),
            until=lambda v: v == 1,
            seconds=40,
        )
    assert check(ready.lord_dsn, data=True, patience=40) == []
    done = ready.cmd("select shardman.create_replica(%s, %s)", (solo, other))
    assert done.status == "success", done


def test_it_clears_up_while_a_command_works_on_what_it_had(ready: Cluster) -> None:
    """That command may wait for whoever hangs in a commit on the very node."""
    eventually("the cluster is settled", lambda: settled(ready), seconds=90)
    part, dead = ready.sql(
        0,
        "select part_name, owner from shardman.partitions where relation = 'acc' and prv is null"
        " order by part_name limit 1",
    )[0]
    thaw = freeze(ready, dead)
    try:
        pending(ready, 1)
        heir = ready.value(
            0, "select owner from shardman.partitions where part_name = %s and prv is null", (part,)
        )
        # Whoever asks earlier waits for the dead node, and is ended.
        promoted = "select shardman.is_in_use(shardman.data_table(%s))"
        eventually("the heir is promoted", lambda: ready.value(heir, promoted, (part,)), seconds=40)
        copies = "select owner from shardman.partitions where part_name = %s"
        having = {row[0] for row in ready.sql(0, copies, (part,))}
        dest = min({1, 2, 3, 4} - having - {dead})
        with psycopg.connect(ready.dsn(heir)) as holder:
            holder.execute(f"select count(*) from {part}".encode())
            moving = ready.submit("select shardman.move_part(%s, %s)", (part, dest))
            working = "select status::text, waits_for from shardman.commands where id = %s"
            eventually(
                "the move waits for the client",
                lambda: ready.sql(0, working, (moving,))[0][1] or "",
                until=lambda said: said.startswith("pid"),
                seconds=40,
            )
            thaw()
            pending(ready, 0)
            assert ready.sql(0, working, (moving,))[0][0] == "in progress"
    finally:
        thaw()
    assert ready.wait(moving).status == "success"
    eventually("the cluster is settled", lambda: settled(ready), seconds=90)
    assert check(ready.lord_dsn, data=True, patience=40) == []


def test_of_a_node_that_is_removed_while_it_is_dead_nothing_is_kept(ready: Cluster) -> None:
    eventually("the cluster is settled", lambda: settled(ready), seconds=90)
    ready.stop_node(2, "immediate")
    pending(ready, 1)
    done = ready.cmd("select shardman.rm_node(2, true)")
    assert done.status == "success", done
    slots = "select count(*) from pg_replication_slots where slot_name like '%\\_2'"
    pending(ready, 0)
    eventually(
        "no slot is left for it",
        lambda: ready.value(0, slots),
        until=lambda found: found == 0,
        seconds=40,
    )
