"""A sharded table becomes a plain one of a node again, while clients write to it through every node."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
import pytest
from tests.cluster.writers import Writers

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually, repeated

NODES = (0, 1, 2, 3)
ROWS = 400
#: On a node: what is made for a sharded table, of whatever name.
MADE = """
select string_agg(c.oid::regclass::text, ', ' order by c.oid) from pg_class c
 where c.relkind in ('r', 'p', 'f') and c.relnamespace <> 'shardman'::regnamespace
   and (c.relname ~ '_([0-9]+)(_data|_fdw)?$' or c.relname ~ 'shardman_c' or c.relname ~ '_aside_')
"""
#: Of a table: all that a client can see of it, but for where its sequences stand.
SHAPE = """
select jsonb_build_object(
    'columns', (select jsonb_agg(jsonb_build_array(
                           a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                           a.attgenerated, a.attstorage,
                           pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)) order by a.attnum)
                  from pg_attribute a left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
                 where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    'constraints', (select jsonb_agg(jsonb_build_array(o.conname, pg_get_constraintdef(o.oid), o.convalidated,
                                     obj_description(o.oid, 'pg_constraint')) order by o.conname)
                      from pg_constraint o where o.conrelid = c.oid),
    'indexes', (select jsonb_agg(jsonb_build_array(
                           pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisprimary,
                           obj_description(i.indexrelid, 'pg_class')) order by i.indexrelid::regclass::text)
                  from pg_index i where i.indrelid = c.oid),
    'statistics', (select jsonb_agg(pg_get_statisticsobjdef(s.oid))
                     from pg_statistic_ext s where s.stxrelid = c.oid),
    'policies', (select jsonb_agg(to_jsonb(p) - 'tablename' order by p.policyname) from pg_policies p
                  where format('%%I.%%I', p.schemaname, p.tablename)::regclass = c.oid),
    'owner', c.relowner::regrole::text, 'acl', c.relacl::text, 'rls', c.relrowsecurity, 'options', c.reloptions,
    'comment', obj_description(c.oid, 'pg_class'), 'identity', c.relreplident, 'kind', c.relkind)
  from pg_class c where c.oid = %s::regclass
"""


@pytest.fixture(scope="module")
def three(cluster: Cluster) -> Cluster:
    for node in NODES:
        cluster.sql(node, "create role ann; create role reader")
    return cluster


def ok(cluster: Cluster, query: str, *params: object) -> None:
    done = cluster.cmd(query.encode(), params)
    assert done.status in ("success", "done"), done


def nothing_left(cluster: Cluster, relation: str, keeper: int) -> None:
    """One plain table, and nowhere a trace of the sharded one."""
    assert (
        cluster.value(keeper, "select relkind from pg_class where oid = %s::regclass", (relation,))
        == "r"
    )
    for node in NODES:
        eventually(
            f"node {node} has nothing of {relation}",
            lambda node=node: (
                cluster.value(node, MADE.encode()),
                cluster.sql(node, "select subject from shardman.leftovers"),
                cluster.sql(node, "select subject, problem from shardman.drift"),
                cluster.sql(
                    node, "select relation from shardman.tables where relation = %s", (relation,)
                ),
                cluster.sql(
                    node,
                    "select part_name from shardman.partitions where relation = %s",
                    (relation,),
                ),
            ),
            until=lambda found: found == (None, [], [], [], []),
            seconds=30,
        )
        if node != keeper:
            with pytest.raises(psycopg.errors.UndefinedTable, match="does not exist"):
                cluster.sql(node, f"select count(*) from {relation}".encode())
    assert check(cluster.lord_dsn, patience=60) == []


def test_while_clients_write_through_every_node(three: Cluster) -> None:
    three.sql(
        1,
        "create table acc (id bigint primary key, value int, filler text default repeat('x', 100))",
    )
    three.sql(1, "insert into acc select i, i from generate_series(1, %s) i", (ROWS,))
    ok(three, "select shardman.create_hash_partitions(1, 'acc', 'id', 6)")
    ok(three, "select shardman.set_replevel('acc', 1)")
    rows = {i: i for i in range(1, ROWS + 1)}
    # Those of node 2, which keeps the table, notice nothing; the others write until it is gone there.
    with ExitStack() as stack:
        here = stack.enter_context(
            Writers(three.dsn(2), "acc", {i: v for i, v in rows.items() if i <= 200}, 200, 0.002)
        )
        with psycopg.connect(three.dsn(1), autocommit=True) as other:
            written = set(range(201, ROWS + 1))
            command = three.value(3, "select shardman.unshard_table('acc', 2)")
            last = ROWS
            error: psycopg.Error | None = None
            while error is None:
                try:
                    other.execute(
                        "insert into acc (id, value) values (%s, %s)", (last + 1, last + 1)
                    )
                    last += 1
                    written.add(last)
                    other.execute("update acc set value = value where id = %s", (last - 1,))
                except psycopg.Error as failed:
                    error = failed
        assert error.sqlstate == "42P01", error
        done = three.wait(command)
        assert done.status == "success", done
    assert here.errors == []
    assert here.done > 50
    assert len(written) > 200
    found = dict(three.sql(2, "select id, value from acc"))
    assert {i: v for i, v in found.items() if i <= 200} == here.rows
    assert {i: v for i, v in found.items() if i > 200} == {i: i for i in written}
    nothing_left(three, "acc", 2)


ODD = """
create schema "S.s" authorization ann;
create table "S.s"."T.ä" (
    "Id" int generated by default as identity primary key,
    "K k" int not null default 7 constraint "pos!" check ("K k" > 0),
    t text collate "C", n numeric(10, 2), twice int generated always as ("K k" * 2) stored, s serial,
    constraint "One" unique ("Id", t));
create index "By n" on "S.s"."T.ä" using btree (n desc nulls last) include (t) where n is not null;
create index on "S.s"."T.ä" (lower(t));
create statistics "S.s"."St" (dependencies) on "K k", n from "S.s"."T.ä";
alter table "S.s"."T.ä" set (fillfactor = 80);
alter table "S.s"."T.ä" alter t set storage external;
comment on table "S.s"."T.ä" is 'a table';
comment on column "S.s"."T.ä"."K k" is 'a column';
comment on constraint "pos!" on "S.s"."T.ä" is 'a check';
comment on index "S.s"."By n" is 'an index';
alter table "S.s"."T.ä" owner to ann;
grant select on "S.s"."T.ä" to reader;
grant update ("K k") on "S.s"."T.ä" to reader;
alter table "S.s"."T.ä" enable row level security;
create policy mine on "S.s"."T.ä" for select to reader using (n > 0);
insert into "S.s"."T.ä" (t, n) select 'x' || i, i from generate_series(1, 50) i;
"""


def test_all_that_a_plain_table_has_comes_back(three: Cluster) -> None:
    three.sql(1, ODD.encode())
    name = '"S.s"."T.ä"'
    # Sharding makes an identity column one with a sequence and a default; unsharding leaves it at that.
    before = three.value(1, SHAPE.encode(), (name,))
    before["columns"][0][5] = 'nextval(\'"S.s"."T.ä_Id_seq"\'::regclass)'
    ok(three, "select shardman.create_hash_partitions(1, %s, '\"Id\"', 4)", name)
    for node in (1, 2, 3):
        three.sql(node, f"insert into {name} (t, n) values ('n', 1)".encode())
    given = [r[0] for r in three.sql(1, f'select "Id" from {name}'.encode())]
    three.sql(2, f"alter table {name} add late int default 5".encode())
    three.sql(3, f'create index "Late" on {name} (late)'.encode())
    eventually("the metadata know of it", lambda: not three.commands_left())
    ok(three, "select shardman.unshard_table(%s, 3)", name)
    after = three.value(3, SHAPE.encode(), (name,))
    assert after["columns"].pop()[0] == "late"
    assert [i for i in after["indexes"] if "Late" in i[0]]
    after["indexes"] = [i for i in after["indexes"] if "Late" not in i[0]]
    assert after == before
    nothing_left(three, name, 3)
    # Numbers go on above all that were given.
    new = three.value(3, f"insert into {name} (t, n) values ('o', 1) returning \"Id\"".encode())
    assert new > max(given)
    assert three.value(3, f"select count(*) from {name}".encode()) == 54
    # And it can be sharded again.
    ok(three, "select shardman.create_hash_partitions(3, %s, '\"Id\"', 2)", name)
    ok(three, "select shardman.drop_table(%s)", name)


def test_foreign_keys_to_a_shared_table_stay(three: Cluster) -> None:
    three.sql(1, "create table nation (id int primary key); insert into nation values (1), (2)")
    three.sql(
        1,
        "create table city (id int primary key, nation int constraint its references nation on delete cascade)",
    )
    three.sql(1, "insert into city select i, 1 + i % 2 from generate_series(1, 40) i")
    ok(three, "select shardman.create_shared_table('nation', 1)")
    ok(three, "select shardman.create_hash_partitions(1, 'city', 'id', 3)")
    ok(three, "select shardman.unshard_table('city', 2)")
    assert three.sql(
        2,
        "select conname, convalidated from pg_constraint where conrelid = 'city'::regclass and contype = 'f'",
    ) == [("its", True)]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        three.sql(2, "insert into city values (99, 9)")
    three.sql(3, "delete from nation where id = 2")
    assert three.value(2, "select count(*) from city") == 20
    nothing_left(three, "city", 2)


def test_without_a_key_it_is_locked(three: Cluster) -> None:
    three.sql(1, "create table log (at int not null, what text)")
    three.sql(
        1,
        "insert into log select i, null from generate_series(1, 100) i; insert into log values (1, 'twice')",
    )
    ok(three, "select shardman.create_hash_partitions(1, 'log', 'at', 3)")
    ok(three, "select shardman.unshard_table('log', 1)")
    assert three.value(1, "select count(*) from log") == 101
    nothing_left(three, "log", 1)


def test_what_is_refused_leaves_the_sharded_table(three: Cluster) -> None:
    three.sql(
        2,
        "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 30) i",
    )
    ok(three, "select shardman.create_hash_partitions(2, 't', 'id', 3)")
    three.sql(3, "set shardman.ddl = 'here'; create view t_view as select * from t")
    refused = three.cmd(b"select shardman.unshard_table('t', 1)")
    assert refused.status == "failed"
    assert "t_view on node 3" in str(refused.error)
    three.sql(3, "set shardman.ddl = 'here'; drop view t_view")
    for query, match in (
        (b"select shardman.unshard_table('nothing', 1)", "not a sharded table"),
        (b"select shardman.unshard_table('t', 9)", "no worker 9"),
    ):
        refused = three.cmd(query)
        assert refused.status == "failed"
        assert match in str(refused.error)
    # Somebody changes it meanwhile: it stays as it is, and nothing is left of the attempt.
    with psycopg.connect(three.dsn(1)) as blocker:
        blocker.execute("select * from t")
        command = three.value(2, "select shardman.unshard_table('t', 1)")
        eventually(
            "the cut-over waits",
            lambda: three.value(
                0, "select waits_for from shardman.cmd_log where id = %s", (command,)
            ),
            seconds=60,
        )
        blocker.rollback()
        repeated(lambda: three.sql(3, "alter table t add late int"))
        blocker.execute("select 1")
    done = three.wait(command)
    assert three.value(1, "select count(*) from t") == 30
    if done.status == "failed":
        # Where a partition was just being moved, it is the move that fails.
        assert "meanwhile" in str(done.error) or "could be moved" in str(done.error)
        ok(three, "select shardman.unshard_table('t', 1)")
    nothing_left(three, "t", 1)
