"""kill -9 of the shardlord before and after every step of commands on colocated tables; of servers too."""

from __future__ import annotations

import os
import time

import pytest

from crash.stops import Point, armed, comes_to, kill_shardlord, points, sample, wait_until_stopped
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster

ROWS = 60
FEW, MANY = 2, 4
SCRIPT = f"""
create schema "Shop";
create table "Shop".orders (tenant int, id int, primary key (tenant, id));
create table lines (tenant int, id int, "order" int, primary key (tenant, id));
insert into "Shop".orders select i, i from generate_series(1, {ROWS}) i;
insert into lines select i, i, i from generate_series(1, {ROWS}) i;
create table gone (id int primary key);
create function goes() returns trigger language plpgsql as
    'begin insert into gone values (old.id); return old; end';
create trigger goes before delete on lines for each row execute function goes();
"""
PREPARED = (
    "select shardman.create_hash_partitions(1, 'gone', 'id', 1)",
    "select shardman.create_hash_partitions(1, '\"Shop\".orders', 'tenant', 2)",
    "select shardman.set_replevel('\"Shop\".orders', 1)",
    "select shardman.create_hash_partitions(1, 'lines', 'tenant', colocate_with => '\"Shop\".orders')",
    """select shardman.add_foreign_key('lines', 'order', 'foreign key (tenant, "order")
    references "Shop".orders (tenant, id) on delete cascade')""",
)
#: The nodes of the copies of each partition, the primary's first.
PLACES = """
select part_name, array_agg(owner order by prv nulls first)
  from shardman.partitions where relation <> 'gone' group by 1
"""
#: Data tables in use without their foreign key or trigger, and others with one.
WRONG = """
select c.oid::regclass::text from pg_class c
 where c.relkind = 'r' and c.relname ~ '^lines_[0-9]+_(data|aside)'
   and (c.relispartition <> exists (select from pg_constraint o where o.conrelid = c.oid and o.contype = 'f')
        or c.relispartition <> exists (select from pg_trigger g where g.tgrelid = c.oid and g.tgname = 'goes'))
"""


def ran(cluster: Cluster, command: str) -> int:
    cmd = cluster.submit(command.encode())
    done = cluster.wait(cmd)
    assert done.status in ("success", "done"), done
    return cmd


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Cluster:
    with cluster.connect(1) as conn:
        conn.execute(SCRIPT.encode())
    for command in PREPARED:
        ran(cluster, command)
    return cluster


def places(cluster: Cluster) -> dict[str, list[int]]:
    return dict(cluster.sql(0, PLACES))


def count(cluster: Cluster) -> int:
    return len(places(cluster)) // 2


def command_of(cluster: Cluster, cmd_type: str) -> str:
    """A command of this type that can be done now: there and back."""
    found = places(cluster)["lines_0"]
    (free,) = {1, 2, 3} - set(found)
    return {
        "move_part": f"select shardman.move_part('lines_0', {free})",
        "switch_primary": f"select shardman.switch_primary('lines_0', {found[-1]})",
        "set_partitions_count": "select shardman.set_partitions_count('lines',"
        f" {MANY if count(cluster) == FEW else FEW})",
    }[cmd_type]


def journal(cluster: Cluster, cmd_type: str) -> list[Point]:
    cmd = ran(cluster, command_of(cluster, cmd_type))
    with cluster.connect(0) as lord:
        return points(lord, cmd)


def settled(cluster: Cluster, point: Point) -> None:
    """Every row is there, partitions lie together, foreign keys hold, triggers act once, nothing is left
    behind."""
    assert check(cluster.lord_dsn, data=True, patience=40) == [], point
    found = places(cluster)
    for part, nodes in found.items():
        assert nodes == found["lines_" + part.rsplit("_", 1)[1]], (point, found)
    for node in (1, 2, 3):
        assert cluster.sql(
            node, 'select count(*) from lines join "Shop".orders using (tenant)'
        ) == [(ROWS,)], point
        assert cluster.sql(node, WRONG.encode()) == [], point
    cluster.sql(2, 'insert into "Shop".orders values (1000, 1)')
    cluster.sql(3, "insert into lines values (1000, 1, 1)")
    cluster.sql(1, 'delete from "Shop".orders where tenant = 1000')
    # Of the foreign key's own DELETE; twice would be a duplicate key.
    assert cluster.sql(3, "delete from gone returning id") == [(1,)], point


LONG = bool(os.environ.get("SHARDMAN_LONG"))
#: The instant at which the shardlord dies, where not all are tried.
ONE = {"set_partitions_count": 27, "move_part": 40, "switch_primary": 20}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("cmd_type", ONE if LONG else ["set_partitions_count"])
def test_the_shardlord_is_killed_at_every_step(shop: Cluster, cmd_type: str) -> None:
    every = journal(shop, cmd_type)
    for point in sample(every, len(every), start=ONE[cmd_type]):
        with armed(shop.lord_dsn, cmd_type, point) as holder:
            cmd = shop.submit(command_of(shop, cmd_type).encode())
            wait_until_stopped(holder, cmd)
            kill_shardlord(shop, holder)
        shop.start_lord()
        done = shop.wait(cmd, 60)
        assert done.status == "success", (point, done)
        settled(shop, point)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", ["primary", "replica", "lord"] if LONG else ["primary"])
@pytest.mark.parametrize(
    "cmd_type", ["set_partitions_count", "move_part"] if LONG else ["set_partitions_count"]
)
def test_a_server_is_killed_at_every_step(shop: Cluster, cmd_type: str, victim: str) -> None:
    every = journal(shop, cmd_type)
    for point in sample(every, len(every), start=len(every) // 2):
        found = places(shop)["lines_0"]
        node = {"primary": found[0], "replica": found[-1], "lord": 0}[victim]
        with armed(shop.lord_dsn, cmd_type, point) as holder:
            cmd = shop.submit(command_of(shop, cmd_type).encode())
            if not comes_to(holder, cmd, point):
                continue
            shop.kill_node(node)
        time.sleep(0.2)
        shop.start_node(node)
        done = shop.wait(cmd, 60)
        assert done.status in ("success", "failed"), (point, done)
        settled(shop, point)


JOIN = "select shardman.colocate('bills', 'lines')"


def new_table(cluster: Cluster) -> None:
    """Sharded, and partition 0 elsewhere than that of the group."""
    cluster.sql(1, "create table bills (tenant int primary key)")
    cluster.sql(1, f"insert into bills select generate_series(1, {ROWS})".encode())
    ran(cluster, f"select shardman.create_hash_partitions(1, 'bills', 'tenant', {count(cluster)})")
    ran(cluster, "select shardman.set_replevel('bills', 1)")
    found = places(cluster)
    if found["bills_0"][0] == found["lines_0"][0]:
        ran(cluster, f"select shardman.switch_primary('bills_0', {found['bills_0'][1]})")


def joins(cluster: Cluster, cmd_type: str, point: Point) -> None:
    """The shardlord is killed where a command of this type is at this point, and the next one goes on."""
    new_table(cluster)
    with armed(cluster.lord_dsn, cmd_type, point) as holder:
        cmd = cluster.submit(JOIN.encode())
        wait_until_stopped(holder, cmd)
        kill_shardlord(cluster, holder)
    cluster.start_lord()
    done = cluster.wait(cmd, 60)
    assert done.status == "success", (point, done)
    settled(cluster, point)
    assert cluster.value(2, "select count(*) from bills") == ROWS
    leaves(cluster)


def leaves(cluster: Cluster) -> None:
    ran(cluster, "select shardman.uncolocate('bills')")
    ran(cluster, "select shardman.drop_table('bills', true)")


@pytest.mark.skipif(not LONG, reason="with SHARDMAN_LONG=1")
@pytest.mark.timeout(1800)
def test_the_shardlord_is_killed_at_every_step_of_a_join(shop: Cluster) -> None:
    new_table(shop)
    every = {"colocate": ran(shop, JOIN)}
    parts = "select cmd_type, min(id) from shardman.cmd_log where parent = %s group by 1"
    every |= dict(shop.sql(0, parts, (every["colocate"],)))
    assert len(every) > 1
    leaves(shop)
    with shop.connect(0) as lord:
        found = {cmd_type: points(lord, cmd) for cmd_type, cmd in every.items()}
    for cmd_type, each in found.items():
        # Those of its parts have tests of their own: a few of them.
        for point in each if cmd_type == "colocate" else each[3::8]:
            joins(shop, cmd_type, point)
