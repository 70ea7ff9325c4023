"""Colocated tables: partitions of one number lie together, whatever is done, and refer to one another."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

LONG = bool(os.environ.get("SHARDMAN_LONG"))
WORKERS = (1, 2, 3)
PARTS = 4
ORDERS = '"The Shop"."Orders ""x"""'
SCRIPT = f"""
create schema "The Shop";
create table tenants (id int primary key, name text);
create table {ORDERS} (tenant int, id int, note text, primary key (tenant, id));
create table lines (tenant int, id int, "order" int, above int, v int, primary key (tenant, id));
create table other (name text primary key);
create table elsewhere (id int primary key);
insert into tenants select i, 't' || i from generate_series(0, 39) i;
insert into {ORDERS} select i % 40, i, 'x' from generate_series(1, 200) i;
insert into lines select i % 40, i, i, null, i from generate_series(1, 200) i;
"""
TABLES = (ORDERS, "lines", "tenants")
#: On a node: data tables that are in use and lack a foreign key, or are not and have one.
WRONG = """
select c.oid::regclass::text, n.keys from pg_class c
 cross join lateral (
       select count(*) from pg_constraint o where o.conrelid = c.oid and o.contype = 'f') as n (keys)
 where c.relkind = 'r' and c.relname ~ '^(Orders "x"|lines|tenants)_[0-9]+_(data|aside)'
   and n.keys <> case when not c.relispartition or c.relname like 'tenants%' then 0
                      when c.relname like 'lines%' then 2 else 1 end
"""


def ok(cluster: Cluster, query: str, *params: object) -> str:
    done = cluster.cmd(query.encode(), params)
    assert done.status in ("success", "done") and not (done.data or {}).get("failed"), done
    return done.result or ""


def refer(cluster: Cluster, relation: str, *args: object) -> None:
    """Asks for a foreign key as it would be recorded."""
    marks = ", ".join(["%s"] * len(args))
    cluster.sql(0, f"select shardman.inside_reference(%s, {marks})".encode(), (relation, *args))


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Cluster:
    """Three tables with a replica of each partition, that are colocated and refer to one another."""
    with cluster.connect(1) as conn:
        conn.execute(SCRIPT.encode())
    ok(cluster, f"select shardman.create_hash_partitions(1, 'tenants', 'id', {PARTS})")
    ok(cluster, "select shardman.set_replevel('tenants', 1)")
    for relation in (ORDERS, "lines"):
        ok(
            cluster,
            "select shardman.create_hash_partitions(1, %s, 'tenant', colocate_with => 'tenants')",
            relation,
        )
    for relation, name, key in (
        (ORDERS, "order's tenant", "(tenant) references tenants (id) on delete cascade"),
        (
            "lines",
            "lines_tenant_order_fkey",
            f'(tenant, "order") references {ORDERS} (tenant, id) on delete cascade on update cascade',
        ),
        (
            "lines",
            "above",
            "(tenant, above) references lines (tenant, id) on delete set null (above)",
        ),
    ):
        query = "select shardman.add_foreign_key(%s, %s, %s)"
        ok(cluster, query, relation, name, f"foreign key {key}")
    return cluster


def copies(cluster: Cluster) -> dict[tuple[str, int], list[int]]:
    """The nodes of each partition's copies, the primary first, by table and number."""
    rows = cluster.sql(
        0,
        "with recursive chain (part_name, relation, owner, nxt, n) as ("
        " select part_name, relation, owner, nxt, 1 from shardman.partitions where prv is null"
        " union all select p.part_name, p.relation, p.owner, p.nxt, n + 1"
        " from chain c join shardman.partitions p on p.part_name = c.part_name and p.owner = c.nxt)"
        " select relation, shardman.part_number(part_name), array_agg(owner order by n)"
        " from chain group by 1, 2",
    )
    return {(relation, k): owners for relation, k, owners in rows}


def together(cluster: Cluster) -> dict[int, list[int]]:
    """The nodes of the copies of each number, which are those of all tables."""
    found = copies(cluster)
    numbers = {k for _, k in found}
    for k in numbers:
        assert len({tuple(found[relation, k]) for relation in TABLES}) == 1, found
    return {k: found["tenants", k] for k in sorted(numbers)}


def right(cluster: Cluster, nodes: tuple[int, ...] = WORKERS) -> None:
    """Copies lie together; foreign keys are where they must be, and no row refers to nothing."""
    together(cluster)
    for node in nodes:
        eventually(
            f"data tables of node {node} have their foreign keys, and others none",
            lambda node=node: cluster.sql(node, WRONG.encode()),
            until=lambda found: found == [],
            seconds=60,
        )
        assert cluster.sql(node, "select data::regclass::text from shardman.lets_leave()") == []
        lost = (
            f"select (select count(*) from lines l where not exists (select from {ORDERS} o"
            ' where o.tenant = l.tenant and o.id = l."order"))'
            f" + (select count(*) from {ORDERS} o"
            " where not exists (select from tenants t where t.id = o.tenant))"
        )
        assert cluster.value(node, lost.encode()) == 0


@contextmanager
def writers(cluster: Cluster, nodes: tuple[int, ...] = WORKERS) -> Iterator[list[str]]:
    """Orders with lines come and go through every node, each in one transaction; what went wrong."""
    wrong: list[str] = []
    stopped = threading.Event()

    def write(node: int) -> None:
        some = random.Random()
        with cluster.connect(node) as conn:
            while not stopped.wait(0.02):
                tenant, number = some.randrange(40), some.randrange(1000, 10**9)
                try:
                    with conn.transaction():
                        conn.execute(
                            f"insert into {ORDERS} values (%s, %s)".encode(), (tenant, number)
                        )
                        conn.execute(
                            b"insert into lines values (%s, %s, %s)", (tenant, number, number)
                        )
                    if number % 2:
                        conn.execute(
                            f"delete from {ORDERS} where tenant = %s and id = %s".encode(),
                            (tenant, number),
                        )
                except psycopg.Error as error:
                    wrong.append(f"through node {node}: {error}")
                    return

    threads = [threading.Thread(target=write, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_they_lie_together_and_answer(shop: Cluster) -> None:
    right(shop)
    assert all(len(owners) == 2 for owners in together(shop).values())
    for node in WORKERS:
        joined = (
            f"select count(*), sum(l.v) from tenants t join {ORDERS} o on o.tenant = t.id"
            ' join lines l on l.tenant = o.tenant and l."order" = o.id'
        )
        assert shop.sql(node, joined.encode()) == [(200, 20100)]


def test_a_join_on_the_key_goes_to_the_owner_whole(shop: Cluster) -> None:
    shop.sql(1, f"analyze {ORDERS}, lines".encode())
    away = shop.value(
        1,
        "select id from tenants where not tableoid::regclass::text like '%data' order by id limit 1",
    )
    query = (
        f"explain (verbose, costs off) select o.note, l.v from {ORDERS} o"
        ' join lines l on l.tenant = o.tenant and l."order" = o.id where o.tenant'
    )
    plan = "\n".join(r[0] for r in shop.sql(1, f"{query} = any ('{{{away}}}')".encode()))
    assert plan.count("Foreign Scan") == 1 and "INNER JOIN" in plan
    # What docs/weak-sides.md says: where the key is compared with one constant each table is asked for itself.
    plan = "\n".join(r[0] for r in shop.sql(1, f"{query} = {away}".encode()))
    assert plan.count("Foreign Scan") == 2


def test_foreign_keys_hold_through_every_node(shop: Cluster) -> None:
    for node in WORKERS:
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="order's tenant"):
            shop.sql(
                node, f"insert into {ORDERS} select i, 1 from generate_series(900, 920) i".encode()
            )
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="lines_tenant_order_fkey"):
            shop.sql(node, "insert into lines values (3, 7777, 8888)")
        shop.sql(node, "insert into tenants values (500, 'new')")
        shop.sql(node, f"insert into {ORDERS} values (500, 1)".encode())
        shop.sql(node, "insert into lines values (500, 1, 1, null), (500, 2, 1, 1)")
        shop.sql(node, "delete from lines where tenant = 500 and id = 1")
        assert shop.sql(node, "select id, above from lines where tenant = 500") == [(2, None)]
        shop.sql(node, f"update {ORDERS} set id = 9 where tenant = 500".encode())
        assert shop.value(node, 'select "order" from lines where tenant = 500') == 9
        shop.sql(node, "delete from tenants where id = 500")
        assert shop.value(node, "select count(*) from lines where tenant = 500") == 0


def test_a_row_that_others_refer_to_goes_to_no_other_partition(shop: Cluster) -> None:
    """PostgreSQL would delete it in one partition, and ON DELETE CASCADE all that refers to it."""

    def at(key: int) -> tuple[int, str]:
        ((node, part),) = shop.sql(
            1, "select node, partition from shardman.partition_of('tenants', %s::text)", (key,)
        )
        return node, part

    rows = f"select (select count(*) from {ORDERS}), (select count(*) from lines)".encode()
    before = shop.sql(1, rows)
    away = [key for key in range(1000, 1012) if at(key) != at(7)]
    for node, key in itertools.product(WORKERS, away):
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="order's tenant"):
            shop.sql(node, "update tenants set id = %s where id = 7", (key,))
        # ON UPDATE CASCADE is done inside of a partition.
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="lines_tenant_order_fkey"):
            shop.sql(node, f"update {ORDERS} set tenant = {key} where tenant = 7".encode())
    assert shop.sql(1, rows) == before
    # Nothing refers to this one.
    home = at(away[0])[0]
    shop.sql(home, "insert into tenants values (%s, 'alone')", (away[0],))
    shop.sql(home, "update tenants set id = 2000 where id = %s", (away[0],))
    assert shop.sql(1, "delete from tenants where id = 2000 returning name") == [("alone",)]


def test_they_move_and_switch_together_under_writers(shop: Cluster) -> None:
    with writers(shop) as wrong:
        primary, replica = together(shop)[0]
        (free,) = set(WORKERS) - {primary, replica}
        ok(shop, "select shardman.move_part('lines_0', %s)", free)
        assert together(shop)[0] == [free, replica]
        ok(shop, "select shardman.switch_primary(%s, %s)", f'{ORDERS[:-1]}_0"', replica)
        assert together(shop)[0] == [replica, free]
        ok(shop, "select shardman.move_part('tenants_0', %s, %s)", primary, free)
        assert together(shop)[0] == [replica, primary]
        ok(shop, "select shardman.rm_replica('tenants_0', %s)", primary)
        assert together(shop)[0] == [replica]
        ok(shop, "select shardman.create_replica('lines_0', %s)", primary)
        assert together(shop)[0] == [replica, primary]
    assert wrong == []
    right(shop)


def test_they_are_split_and_merged_as_one_under_writers(shop: Cluster) -> None:
    for relation, count in (("lines", 2 * PARTS), (ORDERS, PARTS)):
        with writers(shop) as wrong:
            ok(shop, "select shardman.set_partitions_count(%s, %s)", relation, count)
            assert len(together(shop)) == count
            stale = "select count(*) from shardman.partitions where stale_since is not null"
            assert shop.value(0, stale.encode()) == 0
        assert wrong == []
        right(shop)
        # As before, through every node.
        test_foreign_keys_hold_through_every_node(shop)
        assert check(shop.lord_dsn, data=True, patience=30) == []
        for node in (0, *WORKERS):
            assert shop.sql(node, "select * from shardman.leftovers") == []


def test_a_node_is_drained_and_they_are_spread_as_one(shop: Cluster) -> None:
    ok(shop, "select shardman.drain_node(3)")
    assert not any(3 in owners for owners in together(shop).values())
    ok(shop, "select shardman.drain_node(3, false)")
    ok(shop, "select shardman.rebalance('lines')")
    held = [owners[0] for owners in together(shop).values()]
    assert sorted(held.count(n) for n in WORKERS) == [1, 1, 2]
    ok(shop, "select shardman.set_replevel('lines', 1)")
    assert shop.sql(
        0, "select distinct replevel from shardman.tables where colocation is not null"
    ) == [(1,)]
    right(shop)


def test_another_one_takes_over_all_of_them(shop: Cluster) -> None:
    before = together(shop)
    victim = before[0][0]
    others = tuple(n for n in WORKERS if n != victim)
    shop.local.stop_node(victim, "immediate")
    try:
        eventually(
            "replicas have taken over",
            lambda: [owners[0] for owners in together(shop).values()],
            until=lambda heads: victim not in heads,
            seconds=60,
        )
        for k, owners in before.items():
            if owners[0] == victim:
                assert together(shop)[k][0] == owners[1]
        for node in others:
            eventually(
                f"node {node} reaches the new primaries",
                lambda node=node: shop.value(node, "select count(*) from lines"),
                seconds=60,
                tolerate=psycopg.Error,
            )
        with writers(shop, others) as wrong:
            right(shop, others)
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                shop.sql(
                    others[0],
                    "insert into lines select i, 5000, 8888 from generate_series(0, 39) i",
                )
        assert wrong == []
    finally:
        shop.local.start_node(victim)
    eventually(
        "all have their replicas again",
        lambda: shop.value(0, "select count(*) from shardman.partitions where stale_since is null"),
        until=lambda n: n == 2 * len(TABLES) * PARTS,
        seconds=90,
    )
    right(shop)
    assert check(shop.lord_dsn, data=True, patience=90) == []


@pytest.mark.parametrize("lost", ["lines", "tenants"] if LONG else ["lines"])
def test_what_lies_beside_lost_rows_goes_with_them(shop: Cluster, lost: str) -> None:
    """Nothing that is written meanwhile to what is still there gets lost."""
    node, replica = together(shop)[1]
    (tenant,) = shop.sql(
        0, "select min(id) from tenants where tableoid::regclass::text like 'tenants_1%'"
    )[0]
    before = (
        shop.value(0, "select count(*) from tenants"),
        shop.value(0, "select count(*) from lines"),
    )
    stopped, acknowledged = threading.Event(), [0]

    def write() -> None:
        with shop.connect(node) as conn:
            for n in itertools.count(10**6):
                if stopped.is_set():
                    return
                row = f"insert into {ORDERS} values (%s, %s, 'meanwhile')"
                conn.execute(row.encode(), (tenant, n))
                acknowledged[0] += 1

    writer = threading.Thread(target=write)
    if lost != "tenants":
        writer.start()
    shop.sql(node, f"set shardman.ddl = 'here'; drop table {lost}_1_data cascade".encode())
    ok(shop, "select shardman.failover(%s, part_name => %s)", node, f"{lost}_1")
    stopped.set()
    if lost != "tenants":
        writer.join()
        assert acknowledged[0] > 0
    assert together(shop)[1] == [replica]
    for each in WORKERS:
        assert shop.value(each, "select count(*) from tenants") == before[0]
        assert shop.value(each, "select count(*) from lines") == before[1]
        found = f"select count(*) from {ORDERS} where note = 'meanwhile'"
        assert shop.value(each, found.encode()) == acknowledged[0]
    shop.sql(1, f"delete from {ORDERS} where note = 'meanwhile'".encode())
    ok(shop, "select shardman.create_replica('lines_1', %s)", node)
    right(shop)
    assert check(shop.lord_dsn, data=True, patience=60) == []


def test_a_sharded_table_joins_under_writers_and_leaves(shop: Cluster) -> None:
    shop.sql(1, "create table bills (tenant int, id int, primary key (tenant, id))")
    shop.sql(1, "insert into bills select i % 40, i from generate_series(1, 200) i")
    ok(shop, f"select shardman.create_hash_partitions(1, 'bills', 'tenant', {PARTS})")
    ok(shop, "select shardman.create_replica('bills_0', %s)", copies(shop)["bills", 0][0] % 3 + 1)
    # A part that fails says why, and the whole says so with it.
    places, lie = together(shop), copies(shop)
    part, dest = next((k, n) for k, v in places.items() for n in v if n not in lie["bills", k])
    with shop.connect(dest) as conn:
        conn.execute(f"set shardman.ddl = 'here'; create table bills_{part}_data (id int)".encode())
        done = shop.cmd("select shardman.colocate('bills', 'tenants')")
        assert (done.status, done.code) == ("failed", "name_taken"), done
        conn.execute(f"drop table bills_{part}_data".encode())
    with writers(shop) as wrong:
        ok(shop, "select shardman.colocate('bills', 'tenants')")
    assert wrong == []
    found, places = copies(shop), together(shop)
    assert {k: found["bills", k] for k in places} == places
    key = "foreign key (tenant) references tenants (id)"
    ok(shop, "select shardman.add_foreign_key('bills', 'of_tenant', %s)", key)
    for node in WORKERS:
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="of_tenant"):
            shop.sql(node, "insert into bills select i, 1 from generate_series(900, 920) i")
    for relation in ("bills", "tenants"):
        done = shop.cmd("select shardman.uncolocate(%s)", (relation,))
        assert done.status == "failed" and "of_tenant of bills" in str(done.error), done
    ok(shop, "select shardman.drop_foreign_key('bills', 'of_tenant')")
    ok(shop, "select shardman.uncolocate('bills')")
    (free,) = set(WORKERS) - set(places[0])
    ok(shop, "select shardman.move_part('bills_0', %s)", free)
    assert copies(shop)["bills", 0][0] == free and together(shop) == places
    assert shop.value(2, "select count(*) from bills") == 200
    ok(shop, "select shardman.drop_table('bills', true)")
    right(shop)


def test_what_is_refused(shop: Cluster) -> None:
    def refused(query: str, *params: object) -> str:
        done = shop.cmd(query.encode(), params)
        assert done.status == "failed", done
        return done.error or ""

    create = "select shardman.create_hash_partitions(1, 'other', 'name', colocate_with => %s)"
    assert "has not the type" in refused(create, "tenants")
    assert "is not a sharded table" in refused(create, "nothing")
    count = (
        "select shardman.create_hash_partitions(1, 'elsewhere', 'id', 5, colocate_with => 'lines')"
    )
    assert "has 4 partitions, not 5" in refused(count)
    assert "a foreign key of lines" in refused("select shardman.drop_table(%s)", ORDERS)
    owner = together(shop)[1][0]
    error = refused("select shardman.failover(%s, part_name => 'lines_1')", owner)
    assert "has the rows" in error
    for args, why in (
        ((["tenant"], "elsewhere", ["id"]), "is not a sharded table"),
        ((["order"], ORDERS, ["id"]), "must have tenant"),
        ((["tenant", "v"], ORDERS, ["tenant", "note"]), "has not the type"),
        ((["tenant", "v"], "lines", ["tenant", "v"]), "has no key of exactly"),
        ((["tenant", "above"], "lines", ["tenant", "id"], None, "set null"), "would change tenant"),
    ):
        with pytest.raises(psycopg.Error, match=why):
            refer(shop, "lines", *args)


def test_any_of_them_can_be_dropped(shop: Cluster) -> None:
    ok(shop, "select shardman.drop_table('lines', true)")
    assert shop.sql(0, "select relation from shardman.tables order by 1") == [
        (ORDERS,),
        ("tenants",),
    ]
    ok(shop, "select shardman.drop_table(%s, true)", ORDERS)
    # It is still colocated, with nobody.
    ok(
        shop,
        "select shardman.create_hash_partitions(1, 'elsewhere', 'id', colocate_with => 'tenants')",
    )
    found = copies(shop)
    assert all(found["elsewhere", k] == found["tenants", k] for k in range(PARTS))
    ok(shop, "select shardman.drop_table('tenants', true)")
    assert {relation for relation, _ in copies(shop)} == {"elsewhere"}
    assert check(shop.lord_dsn, data=True, patience=60) == []
