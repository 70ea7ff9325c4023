"""create_hash_partitions: a table stays what it was, and in use, while it becomes a sharded one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from cluster.writers import Writers
from crash.stops import LOCK, Point, armed, wait_until_stopped
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster, CommandResult
from shardman.testing.waiting import eventually

STEPS = (
    "check_definition",
    "conversion_log",
    "conversion_shadow",
    "conversion_copy",
    "conversion_index",
    "conversion_catch_up",
    "conversion_verify",
    "conversion_cut_over",
)
#: With what makes nothing of the table's.
PREPARATION = ("give_needed", "give_ways", *STEPS)

LEFT = """
select relname::text from pg_class where relname ~ '(^|_)c[0-9]+(_|$)' and relname !~ '^pg_'
union all select proname from pg_proc where proname ~ '_c[0-9]+$'
union all select tgname from pg_trigger where tgname ~ 'shardman_log'
union all select gid from pg_prepared_xacts
"""


def shard(
    cluster: Cluster, relation: str, expr: str = "id", count: int = 4, rebalance: bool = False
) -> CommandResult:
    return cluster.cmd(
        "select shardman.create_hash_partitions(1, %s, %s, %s, %s)",
        (relation, expr, count, rebalance),
    )


def fresh(cluster: Cluster, name: str, rows: int = 1000) -> None:
    """A table with columns id and value on node 1."""
    cluster.sql(1, sql.SQL("create table {} (id bigint primary key, value int)").format(_id(name)))
    cluster.sql(
        1,
        sql.SQL("insert into {} select i, i from generate_series(1, %s) i").format(_id(name)),
        (rows,),
    )


def _id(name: str) -> sql.Identifier:
    return sql.Identifier(name)


def contents(cluster: Cluster, node: int, name: str) -> dict[int, int]:
    rows = cluster.sql(node, sql.SQL("select id, value from {}").format(_id(name)))
    found = {r[0]: r[1] for r in rows}
    assert len(found) == len(rows), "rows are doubled"
    return found


def is_clean(cluster: Cluster, *, data: bool = False) -> bool:
    """Nothing of a conversion is left on any node, and the cluster agrees with itself.

    Args:
        data: also read every row of every table, to see that it lies where it belongs.
    """
    assert [cluster.sql(n, LEFT) for n in (0, 1, 2, 3)] == [[]] * 4
    assert check(cluster.lord_dsn, data=data) == []
    return True


@contextmanager
def stopped_before(cluster: Cluster, step: str, relation: str, expr: str = "id") -> Iterator[int]:
    """A running conversion that goes on when the block ends."""
    point = Point(PREPARATION.index(step), step, "started")
    with armed(cluster.lord_dsn, "create_hash_partitions", point) as holder:
        cmd_id = cluster.submit(
            "select shardman.create_hash_partitions(1, %s, %s, 4, false)", (relation, expr)
        )
        wait_until_stopped(holder, cmd_id)
        try:
            yield cmd_id
        finally:
            holder.execute("select pg_advisory_unlock(%s)", (LOCK,))


# -- in use -----------------------------------------------------------------------------------------


def test_a_big_table_is_sharded_under_writers(cluster: Cluster) -> None:
    rows = 300_000
    fresh(cluster, "big", rows)
    cluster.sql(1, "create index on big (value)")
    writers = Writers(cluster.dsn(1), "big", {i: i for i in range(1, rows + 1)}, rows + 10_000)
    with writers:
        time.sleep(0.5)
        for client in writers.clients:
            client.longest_s = 0
        done = shard(cluster, "big", count=12)
        time.sleep(0.5)
    assert done.status == "success", done
    assert writers.errors == []
    assert writers.done > 500
    for node in (1, 3):
        assert contents(cluster, node, "big") == writers.rows
    # Not for as long as the copy takes; bench/ measures what it is.
    assert writers.longest_s < 3
    assert is_clean(cluster, data=True)


def test_rows_go_straight_to_their_owners_while_clients_write(cluster: Cluster) -> None:
    fresh(cluster, "spread", 5000)
    with Writers(
        cluster.dsn(1), "spread", {i: i for i in range(1, 5001)}, 6000, pause_s=0.002
    ) as writers:
        done = shard(cluster, "spread", count=6, rebalance=True)
        time.sleep(0.3)
    assert done.status == "success", done
    assert (
        cluster.value(0, "select count(*) from shardman.cmd_log where cmd_type = 'move_part'") == 0
    )
    assert writers.errors == []
    for node in (0, 1, 2, 3):
        assert contents(cluster, node, "spread") == writers.rows
    held = cluster.sql(
        0, "select count(*) from shardman.partitions where relation = 'spread' group by owner"
    )
    assert held == [(2,)] * 3
    assert is_clean(cluster, data=True)


def test_open_snapshots_and_cursors_are_waited_for(cluster: Cluster) -> None:
    fresh(cluster, "waited", 500)
    with cluster.connect(1) as old, cluster.connect(1) as reader, cluster.connect(1) as other:
        with stopped_before(cluster, "conversion_copy", "waited") as cmd_id:
            old.execute("begin isolation level repeatable read")
            old.execute("select count(*) from pg_class")
            reader.execute("begin")
            reader.execute("declare c cursor for select id from waited")
            reader.execute("fetch 10 from c")
        whom = "select waits_for from shardman.commands where id = %s"
        eventually(
            "the command waits for the reader",
            lambda: cluster.value(0, whom, (cmd_id,)) or "",
            until=lambda said: "pid" in said,
            seconds=30,
            every=0.05,
        )
        # Others are not held up meanwhile for longer than one try.
        begun = time.monotonic()
        other.execute("update waited set value = 0 where id = 1")
        assert time.monotonic() - begun < 20
        assert len(reader.execute("fetch all from c").fetchall()) == 490
        reader.execute("commit")
        # The snapshot is older than the partitions: it must meet the table.
        assert old.execute("select count(*), sum(value) from waited").fetchone() == (500, 125250)
        old.execute("commit")
    assert cluster.wait(cmd_id).status == "success"
    assert len(contents(cluster, 2, "waited")) == 500
    assert is_clean(cluster)


@pytest.mark.parametrize(
    "step",
    ["conversion_copy", "conversion_index", "conversion_catch_up", "conversion_verify",
     "conversion_cut_over"],
)  # fmt: skip
def test_a_truncated_table_is_sharded_as_it_is(cluster: Cluster, step: str) -> None:
    name = f"cut_{step}"
    fresh(cluster, name, 2000)
    with stopped_before(cluster, step, name) as cmd_id, cluster.connect(1) as app:
        with app.transaction():
            app.execute(f"insert into {name} values (-1, 1)")
            app.execute(f"truncate {name}")
            app.execute(f"insert into {name} values (5, 50), (7, 70)")
        app.execute(f"update {name} set id = id + 1 where id = 7")
    assert cluster.wait(cmd_id).status == "success"
    assert contents(cluster, 3, name) == {5: 50, 8: 70}
    assert is_clean(cluster)


def test_every_row_may_change_meanwhile(cluster: Cluster) -> None:
    fresh(cluster, "stirred", 3000)
    with stopped_before(cluster, "conversion_index", "stirred") as cmd_id:
        cluster.sql(1, "update stirred set id = -id where id > 1000")
        cluster.sql(1, "delete from stirred where id between 500 and 1000")
        cluster.sql(1, "vacuum full stirred")
    assert cluster.wait(cmd_id).status == "success"
    expected = {i: i for i in range(1, 500)} | {-i: i for i in range(1001, 3001)}
    assert contents(cluster, 2, "stirred") == expected
    assert is_clean(cluster, data=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("alter table changed add more int", "columns"),
        ("alter table changed alter value type bigint", "columns"),
        ("create index on changed (value)", "indexes"),
        ("create view changed_view as select * from changed", "changed_view was made"),
        ("create materialized view seen as table changed", "materialized view seen"),
        ("grant select on changed to public", "acl"),
        ("alter table changed rename to renamed", "renamed"),
    ],
)
def test_a_changed_definition_ends_it(cluster: Cluster, change: str, reason: str) -> None:
    fresh(cluster, "changed")
    with stopped_before(cluster, "conversion_catch_up", "changed") as cmd_id:
        cluster.sql(1, change)  # type: ignore[arg-type]
    done = cluster.wait(cmd_id)
    assert done.status == "failed"
    assert reason in (done.error or "")
    cluster.sql(1, "drop view if exists changed_view; drop materialized view if exists seen")
    assert cluster.value(1, "select count(*) from changed" if reason != "renamed" else
                         "select count(*) from renamed") == 1000  # fmt: skip
    cluster.sql(1, "drop table if exists changed, renamed")
    assert is_clean(cluster)


@pytest.mark.parametrize(
    "step", ["give_ways", "check_definition", "conversion_log", "conversion_copy"]
)
def test_a_table_that_is_gone_ends_it(cluster: Cluster, step: str) -> None:
    fresh(cluster, "gone")
    with stopped_before(cluster, step, "gone") as cmd_id:
        cluster.sql(1, "drop table gone")
    done = cluster.wait(cmd_id)
    assert (done.status, done.code) != ("failed", "internal_error")
    assert done.status == "failed"
    assert is_clean(cluster)


@pytest.mark.parametrize("step", STEPS)
def test_a_cancelled_command_leaves_nothing(cluster: Cluster, step: str) -> None:
    fresh(cluster, "canceled")
    with stopped_before(cluster, step, "canceled") as cmd_id:
        assert cluster.value(0, "select shardman.cancel_cmd(%s)", (cmd_id,))
    assert cluster.wait(cmd_id).status == "canceled"
    cluster.sql(1, "insert into canceled values (0, 0)")
    assert len(contents(cluster, 1, "canceled")) == 1001
    cluster.sql(1, "drop table canceled")
    assert is_clean(cluster)


# -- what is carried over ---------------------------------------------------------------------------

FEATURES = """
create domain positive as int check (value > 0);
create type address as (street text, number int);
create type mood as enum ('glad', 'sad');
create function twice(int) returns int language sql immutable as 'select 2 * $1';
create role someone;
create schema shop;
comment on schema shop is 'where things are sold';
create table shop.items (
    dropped_before text,
    id bigserial,
    code varchar(20) collate "C" not null default 'none',
    price numeric(10, 2) not null check (price >= 0),
    amount positive,
    total numeric generated always as (price * amount) stored,
    counter int generated by default as identity,
    tags text[] default '{}',
    home address,
    feeling mood default 'glad',
    document jsonb,
    plain json,
    at timestamptz default now(),
    dropped_after int,
    note text,
    constraint code_not_empty check (code <> ''),
    constraint items_code_key unique (code, id) include (price),
    primary key (id) with (fillfactor = 80)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
alter table shop.items drop dropped_before, drop dropped_after;
create index items_at on shop.items using brin (at);
create index items_tags on shop.items using gin (tags);
create index items_lower on shop.items (lower(code), price desc nulls last) where amount > 1;
create index items_twice on shop.items (twice(amount)) include (note);
create index items_hash on shop.items using hash (code);
create statistics shop.items_stats (dependencies, ndistinct) on code, price from shop.items;
alter table shop.items alter note set storage external, alter note set statistics 500;
comment on table shop.items is 'what is sold';
comment on column shop.items.price is 'in euro';
comment on constraint code_not_empty on shop.items is 'said so';
grant select, insert on shop.items to someone;
grant usage on schema shop to someone;
grant update (note) on shop.items to someone;
insert into shop.items (code, price, amount, tags, home, feeling, document, plain)
    select 'c' || i, i * 1.25, i, array['t' || i, null], row('road'::text, i)::address,
           (array['glad', 'sad'])[i % 2 + 1]::mood,
           jsonb_build_object('i', i), json_build_object('i', i)
      from generate_series(1, 500) i;
"""

#: The same questions to the plain table and to the sharded one.
QUESTIONS = {
    "columns": """
        select a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation,
               a.attstorage, a.attgenerated, col_description(a.attrelid, a.attnum)
          from pg_attribute a where a.attrelid = 'shop.items'::regclass and a.attnum > 0 and not a.attisdropped
         order by a.attnum""",
    "checks": """
        select conname::text, pg_get_constraintdef(oid), obj_description(oid) from pg_constraint
         where conrelid = 'shop.items'::regclass and contype = 'c' order by 1""",
    "privileges": """
        select grantee::text, privilege_type::text from information_schema.role_table_grants
         where table_schema = 'shop' and table_name = 'items' and grantee <> 'postgres' order by 1, 2""",
    "column privileges": """
        select grantee::text, column_name::text, privilege_type::text from information_schema.column_privileges
         where table_schema = 'shop' and table_name = 'items' and grantee = 'someone' order by 1, 2, 3""",
    "comment": "select obj_description('shop.items'::regclass)",
    "rows": "select *, tableoid is null from shop.items order by id",
}  # fmt: skip


@pytest.fixture(scope="module")
def featured(cluster: Cluster) -> Cluster:
    """A table with a bit of everything; what it is made of is known everywhere."""
    needed, own = FEATURES.split("create schema shop;")
    for node in (0, 1, 2, 3):
        cluster.sql(node, f"set shardman.ddl = 'here'; {needed}".encode())
    with cluster.connect(1) as conn:
        conn.execute("create schema shop;" + own)  # type: ignore[arg-type]
        asked = {k: conn.execute(q).fetchall() for k, q in QUESTIONS.items()}  # type: ignore[arg-type]
    done = cluster.cmd("select shardman.create_hash_partitions(1, 'shop.items', 'id', 5)")
    assert done.status == "success", done
    cluster.asked = asked  # type: ignore[attr-defined]
    return cluster


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_table_is_what_it_was(featured: Cluster, question: str) -> None:
    asked = featured.asked[question]  # type: ignore[attr-defined]
    assert asked
    for node in (0, 1, 2, 3):
        assert featured.sql(node, QUESTIONS[question]) == asked, node  # type: ignore[arg-type]


def test_keys_and_indexes_are_on_the_data_tables(featured: Cluster) -> None:
    for k in range(5):
        owner = featured.value(
            0,
            "select owner from shardman.partitions where part_name = %s",
            (f"shop.items_{k}",),
        )
        found = featured.sql(
            owner,
            "select regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', '') from pg_index"
            " where indrelid = %s::regclass",
            (f"shop.items_{k}_data",),
        )
        assert sorted(f[0].strip() for f in found) == sorted(
            [
                "brin (at)",
                "gin (tags)",
                "btree (lower((code)::text), price DESC NULLS LAST) WHERE ((amount)::integer > 1)",
                "btree (twice((amount)::integer)) INCLUDE (note)",
                "hash (code)",
                "btree (code, id) INCLUDE (price)",
                "btree (id) WITH (fillfactor='80')",
            ]
        )
        assert featured.value(
            owner,
            "select reloptions from pg_class where oid = %s::regclass",
            (f"shop.items_{k}_data",),
        ) == ["fillfactor=70", "autovacuum_vacuum_scale_factor=0.05"]
        assert featured.value(
            owner,
            "select count(*) from pg_statistic_ext where stxrelid = %s::regclass",
            (f"shop.items_{k}_data",),
        ) == 1  # fmt: skip


def test_numbers_are_unique_over_the_cluster(featured: Cluster) -> None:
    rows = [
        featured.sql(
            node,
            "insert into shop.items (price, amount) select i, i from generate_series(1, 50) i"
            " returning id, counter, total, code, feeling",
        )
        for node in (0, 1, 2, 3)
    ]
    all_rows = [r for batch in rows for r in batch]
    assert len({r[0] for r in all_rows}) == len({r[1] for r in all_rows}) == 200
    assert min(r[0] for r in all_rows) > 500
    assert {r[3:] for r in all_rows} == {("none", "glad")}
    assert featured.value(1, "select count(*) from shop.items") == 700
    featured.sql(1, "delete from shop.items where code = 'none'")


def test_what_was_forbidden_stays_forbidden(featured: Cluster) -> None:
    for node in (1, 2):
        for statement, error in (
            ("insert into shop.items (id, price) values (1, 1)", psycopg.errors.UniqueViolation),
            ("insert into shop.items (price) values (-1)", psycopg.errors.CheckViolation),
            ("insert into shop.items (price) values (null)", psycopg.errors.NotNullViolation),
            ("insert into shop.items (price, amount) values (1, 0)", psycopg.errors.CheckViolation),
            ("insert into shop.items (price, code) values (1, '')", psycopg.errors.CheckViolation),
        ):
            with pytest.raises(error):
                featured.sql(node, statement)  # type: ignore[arg-type]


# -- names and keys ---------------------------------------------------------------------------------

NAMES = [
    '"Weird Name"',
    '"UPPER"',
    '"dots.in.it"',
    '"schön ✓"',
    "\"it's \"\"quoted\"\"\"",
    'app."Sub.Schema"',
    '"App ""2"""."select"',
    "a" * 50,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names(cluster: Cluster, name: str) -> None:
    with cluster.connect(1) as conn:
        parts = conn.execute("select parse_ident(%s)", (name,)).fetchone()
        assert parts is not None
        if len(parts[0]) == 2:
            schema = sql.SQL("create schema if not exists {}").format(_id(parts[0][0]))
            conn.execute(schema)
        made = sql.SQL('create table {} ("the key" serial primary key, "Ä" text)')
        table = sql.Identifier(*parts[0])
        conn.execute(made.format(table))
        conn.execute(sql.SQL('create index on {} ("Ä")').format(table))
        conn.execute(
            sql.SQL('insert into {} ("Ä") select i from generate_series(1, 50) i').format(table)
        )
    done = shard(cluster, name, '"the key"', 3, rebalance=True)
    assert done.status == "success", done
    for node in (0, 1, 2, 3):
        count = sql.SQL("select count(*) from {}").format(sql.Identifier(*parts[0]))
        assert cluster.value(node, count) == 50
    cluster.sql(2, sql.SQL("insert into {} (\"Ä\") values ('x')").format(sql.Identifier(*parts[0])))
    assert is_clean(cluster)


@pytest.mark.parametrize(
    ("expr", "unique"),
    [
        ("a, b", "a, b"),
        ("b, a", "c, a, b"),
        ("lower(b)", "b"),
        ("(a + 1)", "a"),
        ("a, lower(b)", "b, a"),
        ("c", "c"),
    ],
)
def test_keys(cluster: Cluster, expr: str, unique: str) -> None:
    cluster.sql(1, "create table keyed (a int not null, b text not null, c uuid not null)")
    cluster.sql(1, f"alter table keyed add primary key ({unique})")  # type: ignore[arg-type]
    cluster.sql(
        1, "insert into keyed select i, 'B' || i, gen_random_uuid() from generate_series(1, 600) i"
    )
    with stopped_before(cluster, "conversion_catch_up", "keyed", expr) as cmd_id:
        cluster.sql(1, "update keyed set b = b || 'x', a = a + 1000 where a % 3 = 0")
        cluster.sql(1, "delete from keyed where a % 7 = 0")
        expected = sorted(cluster.sql(1, "select a, b, c from keyed"))
    done = cluster.wait(cmd_id)
    assert done.status == "success", done
    assert sorted(cluster.sql(2, "select a, b, c from keyed")) == expected
    assert is_clean(cluster, data=True)
    drop(cluster, "keyed")


@pytest.mark.parametrize(
    ("columns", "key", "values", "change"),
    [
        ("id char(10), n numeric, primary key (id, n)", "n", "'k' || i, i * 1.10",
         "update typed_key set n = n + 0.5, id = 'zz' || id where n < 100"),
        ("found int[] primary key, entries jsonb", "found", "array[i, -i], to_jsonb(i)",
         "update typed_key set found = found || 7 where entries < '100'"),
        ("id small_int primary key, other int", "id", "i, i",
         "update typed_key set id = id + 10000 where other < 100"),
        ("id small_int primary key, other int", "id", "i, i",
         "truncate typed_key; insert into typed_key values (3, 3)"),
        ('"select" text collate "C" primary key, old int, new int', '"select"', "'x' || i, i, -i",
         """update typed_key set "select" = "select" || 'ä' where old < 100"""),
        ("id float8 primary key, other int", "id", "i / 4.0, i",
         "update typed_key set id = 'NaN' where other = 7; update typed_key set id = -id"),
    ],
)  # fmt: skip
def test_key_types(cluster: Cluster, columns: str, key: str, values: str, change: str) -> None:
    for node in (0, 1, 2, 3):
        if not cluster.value(node, "select to_regtype('small_int') is not null"):
            cluster.sql(node, "create domain small_int as int not null default 7 check (value > 0)")
    cluster.sql(1, f"create table typed_key ({columns})")  # type: ignore[arg-type]
    cluster.sql(
        1,
        f"insert into typed_key select {values} from generate_series(1, 500) i",  # type: ignore[arg-type]
    )
    with stopped_before(cluster, "conversion_index", "typed_key", key) as cmd_id:
        cluster.sql(1, change)  # type: ignore[arg-type]
        expected = sorted(map(repr, cluster.sql(1, "select * from typed_key")))
    done = cluster.wait(cmd_id)
    assert done.status == "success", done
    assert sorted(map(repr, cluster.sql(3, "select * from typed_key"))) == expected
    assert is_clean(cluster)
    drop(cluster, "typed_key")


def drop(cluster: Cluster, name: str) -> None:
    """Takes a sharded table away by hand, so that its name is free again."""
    with cluster.connect(0) as lord:
        lord.execute("delete from shardman.partitions where relation = %s", (name,))
        lord.execute("delete from shardman.tables where relation = %s", (name,))

    def dropped(node: int) -> bool:
        if cluster.sql(node, "select from shardman.tables where relation = %s", (name,)):
            # To it, it is still a sharded table, which is dropped on all nodes that know it, or on none.
            return False
        cluster.sql(node, sql.SQL("drop table if exists {} cascade").format(_id(name)))
        cluster.sql(node, "select shardman.reconcile()")
        return bool(cluster.value(node, "select shardman.find_relation(%s) is null", (name,)))

    for node in (1, 2, 3, 0):
        eventually(
            f"node {node} has no {name}",
            lambda node=node: dropped(node),
            # One look may wait for half a minute: DDL does, where a node has the table no more.
            seconds=80,
            tolerate=psycopg.Error,
        )


def test_a_table_without_a_key_is_locked_and_says_so(cluster: Cluster) -> None:
    cluster.sql(1, "create table keyless (a int, b text)")
    cluster.sql(1, "insert into keyless select i % 10, 'x' from generate_series(1, 1000) i")
    cluster.sql(1, "insert into keyless values (null, null), (null, null)")
    cluster.sql(1, "create index on keyless (b)")
    done = shard(cluster, "keyless", "a", 3)
    assert done.status == "success", done
    assert "it is locked while its rows, about 1002, are copied" in (done.result or "")
    assert cluster.value(3, "select count(*) from keyless") == 1002
    assert cluster.value(2, "select count(*) from keyless where a is null") == 2
    assert is_clean(cluster)


def test_an_empty_table(cluster: Cluster) -> None:
    fresh(cluster, "empty", 0)
    assert shard(cluster, "empty", rebalance=True).status == "success"
    cluster.sql(3, "insert into empty select i, i from generate_series(1, 100) i")
    assert len(contents(cluster, 1, "empty")) == 100
    assert is_clean(cluster)


def test_one_partition(cluster: Cluster) -> None:
    fresh(cluster, "single", 100)
    assert shard(cluster, "single", count=1, rebalance=True).status == "success"
    assert len(contents(cluster, 3, "single")) == 100


def test_many_partitions(cluster: Cluster) -> None:
    fresh(cluster, "many", 5000)
    with Writers(
        cluster.dsn(1), "many", {i: i for i in range(1, 5001)}, 6000, pause_s=0.002
    ) as writers:
        done = shard(cluster, "many", count=120)
    assert done.status == "success", done
    assert writers.errors == []
    assert contents(cluster, 1, "many") == writers.rows
    assert is_clean(cluster, data=True)


def test_its_views_read_the_sharded_table(cluster: Cluster) -> None:
    """With their options, defaults, comments and rights, on every node, and for those who read meanwhile."""
    fresh(cluster, "looked_at", 3000)
    for node in range(4):
        cluster.sql(node, "create role looker")
    cluster.sql(
        1,
        'create schema if not exists "Views"; grant usage on schema "Views" to looker;'
        ' create view "Views"."Sées" with (security_barrier = true) as'
        '   select id, value as "Wert" from looked_at where id <= 3000;'
        ' create view of_views as select count(*) as n, sum("Wert") as s from "Views"."Sées";'
        " create view way_in as select id, value from looked_at where value > 0 with check option;"
        " alter view way_in alter value set default 7; grant insert, select on way_in to looker;"
        " comment on view way_in is 'the way in';"
        " create table beside (id bigint primary key);"
        " create view of_both as select id from looked_at join beside using (id)",
    )
    with stopped_before(cluster, "conversion_cut_over", "looked_at") as cmd_id:
        reader = psycopg.connect(cluster.dsn(1), prepare_threshold=0)
        told = reader.execute("select n, s from of_views").fetchall()
    # It has the view's lock, and asks for the table's in its own time: the cut-over waits for it.
    while cluster.value(0, "select status from shardman.commands where id = %s", (cmd_id,)) in (
        "waiting",
        "in progress",
    ):
        assert reader.execute("select n, s from of_views").fetchall() == told == [(3000, 4501500)]
        reader.execute("select pg_sleep(0.05)")
        reader.commit()
    assert cluster.wait(cmd_id).status == "success"
    assert reader.execute("select n, s from of_views").fetchall() == told
    reader.close()
    for node in (1, 2, 3):
        assert cluster.sql(node, "select n, s from of_views") == told
        cluster.sql(node, f"set role looker; insert into way_in (id) values ({4000 + node})")
        with pytest.raises(psycopg.errors.WithCheckOptionViolation):
            cluster.sql(node, "insert into way_in values (%s, -1)", (4010 + node,))
        assert cluster.value(node, "select obj_description('way_in'::regclass)") == "the way in"
        assert cluster.value(node, "select reloptions from pg_class where relname = 'Sées'") == [
            "security_barrier=true"
        ]
    assert cluster.sql(1, "select id, value from looked_at where id > 3000 order by id") == [
        (4001, 7),
        (4002, 7),
        (4003, 7),
    ]
    assert cluster.value(1, "select count(*) from of_both") == 0
    cluster.sql(1, "drop view of_both; drop table beside")
    assert is_clean(cluster, data=True)


# -- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "expr", "error"),
    [
        ("create table no (id int primary key, other int)", "other", "does not contain other"),
        ("create table no (id mood primary key)", "id", "hash"),
        ("create table no (id int); create materialized view v_no as table no", "id", "view v_no"),
        ("create table no (id int references base)", "id", "foreign key"),
        ("create unlogged table no (id int)", "id", "unlogged"),
        ("create view no as select 1 as id", "id", "view"),
        ("create table no (id int) partition by hash (id)", "id", "partitioned"),
        ("create table no (id int) inherits (base)", "id", "inherits"),
        ("create table no (id int)", "nothing", "nothing"),
        ("create table no (id int)", "random()", "random"),
        ("create table no (id int); create table no_1 (x int)", "id", "no_1"),
        ("select 1", "id", "there is no table"),
    ],
)
def test_refused(cluster: Cluster, make: str, expr: str, error: str) -> None:
    with cluster.connect(1) as conn:
        conn.execute("create table if not exists base (id int primary key)")
        conn.execute(
            "do $$ begin create type mood as enum ('a'); exception when others then end $$"
        )
        conn.execute(make)  # type: ignore[arg-type]
    done = shard(cluster, "no", expr)
    assert done.status == "failed"
    assert error in (done.error or ""), done
    assert cluster.value(0, "select count(*) from shardman.tables where relation = 'no'") == 0
    with cluster.connect(1) as conn:
        conn.execute("drop materialized view if exists v_no")
        kind = conn.execute("select relkind from pg_class where relname = 'no'").fetchone()
        if kind is not None:
            conn.execute("drop view no" if kind[0] == "v" else "drop table no")
        conn.execute("drop table if exists no_1")
    assert is_clean(cluster)


def test_refused_when_a_name_is_taken_elsewhere(cluster: Cluster) -> None:
    fresh(cluster, "taken", 10)
    cluster.sql(2, "create table taken_1_fdw (x int)")
    done = shard(cluster, "taken")
    assert done.status == "failed"
    assert "node 2 has relations of its own" in (done.error or "")
    assert "taken_1_fdw" in (done.error or "")
    cluster.sql(2, "drop table taken_1_fdw")
    assert shard(cluster, "taken").status == "success"


def test_a_type_goes_with_the_table_unless_it_is_to_stay(cluster: Cluster) -> None:
    cluster.sql(1, "set shardman.ddl = 'here'; create type only_here as enum ('a', 'b')")
    cluster.sql(1, "create table typed (id int primary key, what only_here)")
    cluster.sql(0, "insert into shardman.settings values ('spread_ddl', 'none')")
    eventually(
        "node 1 knows",
        lambda: cluster.value(
            1, "select count(*) from shardman.settings where name = 'spread_ddl'"
        ),
    )
    done = shard(cluster, "typed")
    cluster.sql(0, "delete from shardman.settings where name = 'spread_ddl'")
    assert done.status == "failed"
    assert "only_here" in (done.error or "")
    assert "Make what is missing on that node first" in (done.error or "")
    eventually(
        "node 1 knows",
        lambda: cluster.value(
            1, "select count(*) from shardman.settings where name = 'spread_ddl'"
        ),
        until=lambda known: known == 0,
    )
    assert shard(cluster, "typed").status == "success"
    assert is_clean(cluster)


def test_twice(cluster: Cluster) -> None:
    fresh(cluster, "twice_sharded", 10)
    first = cluster.submit("select shardman.create_hash_partitions(1, 'twice_sharded', 'id', 2)")
    second = cluster.submit("select shardman.create_hash_partitions(1, 'twice_sharded', 'id', 2)")
    assert cluster.wait(first).status == "success"
    done = cluster.wait(second)
    assert (done.status, "already" in (done.error or "")) == ("failed", True)


# -- nodes that are away ----------------------------------------------------------------------------


def test_a_node_that_is_down_gets_the_table_when_it_is_back(cluster: Cluster) -> None:
    fresh(cluster, "later", 100)
    cluster.stop_node(3)
    try:
        done = shard(cluster, "later", rebalance=True)
    finally:
        cluster.start_node(3)
    assert done.status == "success", done
    assert "Node 3 cannot be reached" in (done.result or "")
    eventually(
        "node 3 has the table",
        lambda: len(contents(cluster, 3, "later")),
        until=lambda rows: rows == 100,
        seconds=30,
        tolerate=psycopg.Error,
    )
    assert is_clean(cluster)


def test_the_node_of_the_table_dies(cluster: Cluster) -> None:
    fresh(cluster, "dies", 1000)
    with stopped_before(cluster, "conversion_index", "dies") as cmd_id:
        cluster.kill_node(1)
    done = cluster.wait(cmd_id)
    assert done.status == "failed", done
    cluster.start_node(1)
    eventually(
        "nothing is left of it",
        lambda: cluster.sql(1, LEFT),
        until=lambda left: left == [],
        seconds=30,
    )
    assert len(contents(cluster, 1, "dies")) == 1000
    assert shard(cluster, "dies").status == "success"
    assert is_clean(cluster, data=True)
