"""DDL of a sharded table on one node is DDL of the cluster, in the caller's transaction, while others write."""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import Self

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from schema.bob import NODES, as_bob
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

ROWS = 300
COLUMNS = """
select string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod),
                            case when attnotnull then 'not null' end), ', '
                  order by attname)
  from pg_attribute where attrelid = 'app.acc'::regclass and attnum > 0 and not attisdropped
"""


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    """An ordinary role's table in a schema of its own, with a replica of each partition."""
    for node in NODES:
        cluster.sql(node, "create role bob login password 'b'; create schema app authorization bob")
    with as_bob(cluster, 1) as bob:
        bob.execute(
            "create table acc (id int primary key, v int not null default 0, name varchar(20), serial serial,"
            " unique (id, name))"
        )
        bob.execute(
            "insert into acc (id, name) select i, 'n' || i from generate_series(1, %s) i", (ROWS,)
        )
    for command, args in (
        ("select shardman.create_hash_partitions(1, 'app.acc', 'id', 3)", ()),
        ("select shardman.set_replevel('app.acc', 1)", ()),
    ):
        done = cluster.cmd(command, args)  # type: ignore[arg-type]
        assert done.status in ("success", "done"), done
    eventually(
        "bob's ways to other nodes are there",
        lambda: all(bob_counts(cluster, n) == ROWS for n in NODES),
        tolerate=psycopg.Error,
    )
    return cluster


def bob_counts(cluster: Cluster, node: int) -> int:
    with as_bob(cluster, node) as bob:
        return int((bob.execute("select count(*) from acc").fetchone() or (0,))[0])


def columns(cluster: Cluster) -> set[str]:
    """What each node thinks: one, when all agree."""
    return {str(cluster.value(n, COLUMNS)) for n in NODES}


def followed(cluster: Cluster) -> None:
    """The metadata know all."""
    eventually("what DDL submitted has ended", lambda: not cluster.commands_left())


def settled(cluster: Cluster) -> None:
    """Nothing differs, and the metadata know all."""
    followed(cluster)
    assert check(cluster.lord_dsn, data=True) == []


def keys(cluster: Cluster, node: int) -> set[str]:
    """The keys that whoever reads the catalogs finds."""
    rows = cluster.sql(
        node,
        "select conname || ' ' || pg_get_constraintdef(oid) from pg_constraint"
        " where conrelid = 'app.acc'::regclass and contype in ('p', 'u')",
    )
    return {row[0] for row in rows}


def test_the_table_has_its_keys(acc: Cluster) -> None:
    for node in NODES:
        assert keys(acc, node) == {
            "acc_pkey PRIMARY KEY (id)",
            "acc_id_name_key UNIQUE (id, name)",
        }
        grouped = "select a.*, count(*) from app.acc a group by id order by id limit 1"
        assert acc.sql(node, grouped) == [(1, 0, "n1", 1, 1)]
    with as_bob(acc, 2) as bob:
        # What stands in the way of taking the key away, which only a change of a type needs.
        bob.execute("create view grouped as select a.*, count(*) as n from acc a group by id")
        bob.execute("alter table acc add column type int")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            bob.execute("alter table acc drop constraint if exists Acc_Pkey")
        bob.execute("drop view grouped")
        bob.execute("alter table acc drop column type")


def test_a_new_column_of_a_domain_with_a_check(acc: Cluster) -> None:
    for domain in (
        "above as int default 5 check (value > 0)",
        "random as float default random() check (value < 2)",
    ):
        acc.sql(0, f"create domain app.{domain}".encode())  # type: ignore[arg-type]
    with as_bob(acc, 2) as bob:
        bob.execute("alter table acc add column a above, add column b above default 7 not null")
        bob.execute("alter table acc add column c random default 1.5")
        for generated in ("", ", add column e int generated always as (v + 1) stored"):
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="anew on each"):
                bob.execute(f"alter table acc add column d random{generated}".encode())
        rows = bob.execute("select a, b, c, count(*) from acc group by 1, 2, 3").fetchall()
        assert [row[:3] for row in rows] == [(5, 7, 1.5)]
    settled(acc)
    with as_bob(acc, 3) as bob:
        bob.execute("alter table acc drop column a, drop column b, drop column c")
    acc.sql(0, "drop domain app.above, app.random")


class Writers:
    """Three clients, each through a node of its own, that count what they were told is written."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ended = threading.Event()
        self.written = 0
        self.errors: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in (1, 2, 3)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()

    def _write(self, node: int) -> None:
        with as_bob(self.cluster, node) as bob:
            # Each has its own rows: nobody waits for another client's.
            ids, done = range(node, ROWS, 3), 0
            while not self.ended.is_set():
                try:
                    bob.execute("update acc set v = v + 1 where id = %s", (ids[done % len(ids)],))
                except psycopg.Error as error:
                    self.errors.append(str(error))
                    return
                done += 1
            with self._lock:
                self.written += done


APART = "select count(*) from shardman.rights_apart('app.acc')"
DDL = [
    (1, "alter table acc alter name type text"),
    (2, "alter table acc add column x int not null default 5"),
    (3, "alter table acc rename column name to title"),
    (0, "ALTER TABLE app.acc ADD CONSTRAINT positive CHECK (id > 0)"),
    (1, 'create index "by v" on acc (v) where v > 3'),
    (3, "/* why */ alter table acc alter x drop not null, alter x set default 7;"),
    (2, "create policy all_of_it on acc using (true)"),
    (1, "grant select (id) on acc to public"),
    (2, "alter table acc drop column title"),
    (1, "comment on table acc is 'accounts; all of them'"),
]


def test_ddl_is_everywhere_at_once_while_others_write(acc: Cluster) -> None:
    with Writers(acc) as writers:
        for node, statement in DDL:
            with as_bob(acc, node) as bob:
                bob.execute(statement.encode())
            assert len(columns(acc)) == 1, statement
            # Of the partitions as well: statements from other nodes name them.
            assert [acc.value(n, APART) for n in NODES] == [0] * 4, statement
    assert writers.errors == []
    assert columns(acc) == {
        "id integer not null, serial integer not null, v integer not null, x integer"
    }
    for node in NODES:
        assert keys(acc, node) == {"acc_pkey PRIMARY KEY (id)"}
        assert acc.sql(node, "select count(*), sum(v), sum(x) from app.acc") == [
            (ROWS, writers.written, 5 * ROWS)
        ]
    settled(acc)
    with as_bob(acc, 3) as bob:
        bob.execute('drop index "by v"')
        bob.execute("drop policy all_of_it on acc")
    settled(acc)


NEW_TYPES = [
    (1, "alter table acc alter v type bigint"),
    (2, "alter table acc alter v type numeric(12, 2) using v::numeric(12, 2)"),
    (3, "alter table acc alter v type text"),
]


def test_rows_get_a_new_type_on_all_copies(acc: Cluster) -> None:
    """Each copy writes its rows anew."""
    with as_bob(acc, 1) as bob:
        bob.execute("alter table acc rename v to kept")
        bob.execute("alter table acc add v int")
        bob.execute("update acc set v = id")
        bob.execute("create index on acc (v)")
    for node, statement in NEW_TYPES:
        with as_bob(acc, node) as bob:
            bob.execute(statement.encode())
            bob.execute("update acc set v = v where id < 50")
        assert len(columns(acc)) == 1, statement
    settled(acc)
    assert acc.sql(
        2, "select min(v), max(v), count(distinct v) from app.acc where id in (7, 99)"
    ) == [("7.00", "99.00", 2)]
    with as_bob(acc, 1) as bob:
        bob.execute("alter table acc drop v")
        bob.execute("alter table acc rename kept to v")
    settled(acc)


ODD = (
    "-c search_path=app -c standard_conforming_strings=off -c escape_string_warning=off"
    " -c quote_all_identifiers=on -c array_nulls=off"
)


def test_the_settings_of_the_session_do_not_matter(acc: Cluster) -> None:
    dsn = make_conninfo(acc.dsn(1), user="bob", password="b", options=ODD)
    before = columns(acc)
    with psycopg.connect(dsn, autocommit=True) as bob:
        bob.execute("alter table acc add odd int not null default 3")
        bob.execute("alter table acc add constraint odd_key unique (id, odd)")
        assert len(columns(acc)) == 1
        # It would be another string there.
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="standard_conforming_strings"):
            bob.execute("alter table acc add constraint bad check (odd::text <> '\\\\')")
        bob.execute("alter table acc drop odd")
    assert columns(acc) == before
    settled(acc)


COMMENTED = [
    "comment on column acc.v is 'c'",
    "comment on column app . acc . id is 'd'",
    "comment on constraint acc_pkey on acc is 'k'",
    "create policy seen on acc using (true)",
    "comment on policy seen on acc is 'p'",
    "create index named on acc (v)",
    "alter index if exists named rename to renamed",
    "comment on index app.renamed is 'i'",
]


def test_comments_and_names_of_what_belongs_to_it(acc: Cluster) -> None:
    with as_bob(acc, 3) as bob:
        for statement in COMMENTED:
            bob.execute(statement.encode())
    # status and check compare them.
    settled(acc)
    said = "select string_agg(item, ';' order by item) from shardman.schema_items() where aspect = 'comments'"
    for node in NODES:
        told = str(acc.value(node, said))
        assert all(f"is '{c}'" in told for c in "cdkpi"), told
    # One node alone, by who wants it.
    here = acc.value(
        0, "select owner from shardman.partitions where part_name = 'app.acc_1' and prv is null"
    )
    with as_bob(acc, here) as bob:
        bob.execute("set shardman.ddl = 'here'; comment on table acc_1_data is 'mine'")
        bob.execute("comment on table acc_1_data is null; reset shardman.ddl")
        bob.execute("drop index renamed")
        bob.execute("drop policy seen on acc")


def test_a_column_of_an_enum_with_a_default(acc: Cluster) -> None:
    acc.sql(1, "create type app.\"Mood\" as enum ('well', 'it''s')")
    with as_bob(acc, 2) as bob:
        bob.execute("alter table acc add column mood app.\"Mood\" not null default 'it''s'")
    for node in NODES:
        assert acc.sql(node, "select mood, count(*) from app.acc group by 1") == [("it's", ROWS)]
    settled(acc)
    with as_bob(acc, 3) as bob:
        bob.execute("alter table acc drop column mood")
    acc.sql(3, 'drop type app."Mood"')
    settled(acc)


def test_it_is_of_the_callers_transaction(acc: Cluster) -> None:
    before = columns(acc)
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("alter table acc add column gone int")
        bob.execute("update acc set gone = id")
        bob.rollback()
        assert columns(acc) == before
        bob.execute("alter table acc add column kept int")
        bob.execute("savepoint here")
        bob.execute("alter table acc drop column v")
        bob.execute("rollback to here")
        # Rows as well, which replicas get.
        bob.execute("update acc set kept = id")
        bob.commit()
    for node in NODES:
        assert acc.value(node, "select sum(kept) from app.acc") == ROWS * (ROWS + 1) // 2
    settled(acc)


def test_rights_on_several_tables(acc: Cluster) -> None:
    for node in NODES:
        acc.sql(node, "create role reader")
    reads = "select has_table_privilege('reader', 'app.acc', 'select')"
    with as_bob(acc, 2) as bob:
        bob.execute('create table "more" (id int)')
        with pytest.raises(psycopg.errors.UndefinedTable):
            bob.execute('grant select on acc, "more" to reader')
        bob.execute('drop table "more"')
        bob.execute("grant select on table acc, app.acc to reader")
        assert [acc.value(n, reads) for n in NODES] == [True] * 4
    acc.sql(2, "revoke all on all tables in schema public, app from reader")
    assert [acc.value(n, reads) for n in NODES] == [False] * 4
    acc.sql(3, "GRANT SELECT ON ALL TABLES IN SCHEMA app TO reader")
    assert [acc.value(n, reads) for n in NODES] == [True] * 4
    # Of the owner: replicas are in that schema too, and not his.
    lent = (
        "select count(*) from pg_class"
        " where relname ~ '_data$' and relowner <> 'bob'::regrole and relacl::text ~ 'bob='"
    )
    said: list[str] = []
    for verb, reading in (("revoke all", False), ("grant select, insert", True)):
        with as_bob(acc, 1) as bob:
            bob.add_notice_handler(lambda n: said.append(str(n.message_primary)))
            to = "to" if reading else "from"
            with contextlib.suppress(psycopg.errors.UndefinedObject):
                bob.execute(f"{verb} on all tables in schema app {to} nobody".encode())
            bob.execute(f"{verb} on all tables in schema app {to} reader".encode())
            assert bob.execute("show client_min_messages").fetchone() == ("notice",)
        assert [acc.value(n, reads) for n in NODES] == [reading] * 4
    assert said == []
    assert [acc.value(n, lent) for n in NODES] == [0] * 4
    settled(acc)


def test_a_table_is_locked_on_all_nodes(acc: Cluster) -> None:
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("select shardman.lock_table('app.acc', 'share row exclusive')")
        for node in NODES:
            with as_bob(acc, node) as other:
                other.execute("set lock_timeout = '50ms'")
                assert other.execute("select count(*) from acc").fetchone() == (ROWS,)
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    other.execute("insert into acc (id) values (-1)")
        bob.rollback()
        bob.execute("set lock_timeout = '100ms'")
        with acc.connect(3) as other, other.transaction():
            other.execute("lock table app.acc in access share mode")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                bob.execute("select shardman.lock_table('app.acc')")
        bob.rollback()
        bob.execute("select shardman.lock_table('app.acc', 'exclusive')")
        bob.execute("select shardman.lock_table('app.acc', 'access exclusive')")
        bob.commit()
        for words, given in (
            ("not a sharded", ("app.nope", "share")),
            ("no lock mode", ("app.acc", "x")),
        ):
            with pytest.raises(psycopg.Error, match=words):
                bob.execute("select shardman.lock_table(%s, %s)", given)
            bob.rollback()
    acc.sql(1, "create role carol login password 'b' in role shardman_viewer")
    dsn = make_conninfo(acc.dsn(1), user="carol", password="b")
    with psycopg.connect(dsn) as carol, pytest.raises(psycopg.Error, match="must be owner"):
        carol.execute("select shardman.lock_table('app.acc')")
    settled(acc)


DORA = """
create role clerks;
create role "Dora ö" login password 'd' createdb connection limit 7 valid until '2030-01-01' in role clerks;
alter role "Dora ö" set work_mem = '7MB';
alter role "Dora ö" in database postgres set search_path = app, "We, ird";
alter role "Dora ö" set datestyle = 'ISO, DMY'
"""


def test_roles_are_the_same_everywhere(acc: Cluster) -> None:
    def dora(node: int) -> object:
        return acc.value(
            node, "select shardman.role_text(oid) from pg_roles where rolname = 'Dora ö'"
        )

    acc.sql(0, DORA)
    done = acc.cmd("select shardman.sync_roles(role => 'Dora ö')")
    assert (done.status, done.error) == ("done", None), done
    assert all(dora(n) == dora(0) for n in NODES)
    dsn = make_conninfo(acc.dsn(3), user="Dora ö", password="d")
    with psycopg.connect(dsn) as conn:
        found = conn.execute("select current_setting('work_mem'), current_setting('search_path')")
        assert found.fetchone() == ("7MB", 'app, "We, ird"')
    # Given to nobody but who has rights; from another node; less than before.
    acc.sql(0, 'grant select on app.acc to "Dora ö"')
    acc.sql(
        2,
        'alter role "Dora ö" nocreatedb valid until \'infinity\'; alter role "Dora ö" reset work_mem',
    )
    acc.sql(
        2,
        'revoke clerks from "Dora ö"; create role staff; grant staff to "Dora ö"',
    )
    acc.sql(3, "create role staff superuser")
    done = acc.cmd("select shardman.sync_roles(2)")
    assert "On node 3: staff is a superuser, or the cluster's own, here" in (done.result or ""), (
        done
    )
    assert dora(0) == dora(1) == dora(2)
    assert '"Dora ö" is no member of staff' in (done.result or "")
    assert acc.value(3, """select not pg_has_role('Dora ö', 'staff', 'member')""")
    for role, words in (
        ("postgres", "superuser's"),
        ("nobody", "no role nobody"),
        ("pg_monitor", "own"),
    ):
        refused = acc.cmd("select shardman.sync_roles(role => %s)", (role,))
        assert words in (refused.error or ""), refused
    acc.sql(3, "alter role staff nosuperuser")


#: On each node another one.
LONE = "create sequence if not exists lone"
REFUSED = [
    ("do $$ begin perform 1; alter table app.acc add column no int; end $$", "on this node only"),
    ("do $$ begin perform 1; alter table app.acc rename to other; end $$", "on this node only"),
    ("create index concurrently on acc (v)", "concurrently"),
    ("do $$ begin perform 1; drop table app.acc cascade; end $$", "rows of this node only"),
    ("drop table acc cascade; select 1", "rows of this node only"),
    ("drop schema app cascade", "rows of this node only"),
    ("alter table acc add check (current_date > date '2000-01-01')", "depends on the session"),
    ("alter table acc add at timestamptz; alter table acc alter at type date", "anew on each"),
    ("alter table acc add bad nonexistent", "does not exist"),
    (
        "create trigger t before update on acc execute function tsvector_update_trigger()",
        "acts once for each statement",
    ),
    ("create rule r as on delete to acc do instead nothing", "on this node only"),
    ("alter index acc rename to other", "is a table"),
    ("do $$ begin perform 1; comment on column app.acc.id is 'x'; end $$", "on this node only"),
    ("create index on acc_1 (v)", "acc_1 belongs to the sharded table app.acc"),
    ("comment on table acc_1 is 'x'", "acc_1 belongs to the sharded table app.acc"),
    ("alter table acc_1 rename to other", "other belongs to the sharded table app.acc"),
    ("alter sequence acc_serial_seq restart with 7", "each has a range of its own"),
    ("alter sequence acc_serial_seq owned by none", "and belongs to it"),
    (
        "do $$ begin perform 1; alter table app.acc_serial_seq rename to other; end $$",
        "on this node only",
    ),
    ("alter table acc alter v set default nextval('lone')", "sequence app.lone, which is each"),
    ("alter table acc add n bigint default nextval('lone')", "sequence app.lone, which is each"),
    ("alter sequence acc_serial_seq no maxvalue", "and others on other nodes"),
    ("alter sequence acc_serial_seq cycle", "begin anew at its end"),
    (
        "do $$ begin perform 1; alter sequence app.acc_serial_seq restart; end $$",
        "on this node only",
    ),
    ("alter table acc alter serial set increment 2", "no identity columns"),
    ("alter table acc replica identity full", "follows from its keys"),
    ("alter table acc cluster on acc_pkey", "data tables of several nodes"),
    ("alter table acc add more int, set unlogged", "moves and replicas read the log"),
    ("alter table acc set (fillfactor = 70), add more int", "in one statement with other things"),
    ("alter table acc set (fillfactor = 1)", "out of bounds"),
    (
        "grant select on acc to lonely",
        r"(?s)node 0: role .lonely. does not exist.*shardman.sync_roles",
    ),
]


TUNED = """
select c.relname, c.reloptions, t.reloptions, a.attstorage::text, a.attcompression::text,
       -- The newest minor releases keep a value of their own there, another one for each column.
       (select array_agg(o) from unnest(a.attoptions) o where o !~ '^pg_attver='), nullif(a.attstattarget, -1)
  from pg_class c left join pg_class t on t.oid = c.reltoastrelid
  join pg_attribute a on a.attrelid = c.oid and a.attname = 'note'
 where c.relnamespace = 'app'::regnamespace and c.relname ~ '_data$' order by 1
"""


def tuned(cluster: Cluster) -> list[tuple[object, ...]]:
    """How the data tables and replicas of all nodes are set."""
    return [row[1:] for n in (1, 2, 3) for row in cluster.sql(n, TUNED)]


def test_how_rows_are_stored_is_the_same_on_all_copies(acc: Cluster) -> None:
    with as_bob(acc, 2) as bob:
        # Written anew on all copies, each by itself: it is the same everywhere.
        bob.execute(
            "alter table acc add twice int generated always as (v * 2) stored, add note text"
        )
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="anew on each of its copies"):
            bob.execute(
                "alter table acc add odd int default 1 + random()::int,"
                " add thrice int generated always as (v * 3) stored"
            )
        bob.execute("alter table acc set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.5)")
        bob.execute("alter table if exists app.acc set (toast.autovacuum_enabled = off)")
        bob.execute(
            "alter table acc alter note set storage external, alter column note set statistics 500"
        )
        with bob.transaction(), contextlib.suppress(psycopg.errors.DivisionByZero):
            bob.execute("alter table acc reset (fillfactor)")
            bob.execute("select 1/0")
        with bob.transaction():
            bob.execute("alter table only acc alter note set compression pglz")
            bob.execute("alter table acc alter note set (n_distinct = 5)")
            bob.execute("alter table acc reset (autovacuum_vacuum_scale_factor)")
    wanted = (["fillfactor=70"], ["autovacuum_enabled=off"], "e", "p", ["n_distinct=5"], 500)
    assert tuned(acc) == [wanted] * 6
    settled(acc)
    # What is made anew has it, too.
    part, away = acc.sql(
        0,
        "select p.part_name, n from shardman.partitions p, generate_series(1, 3) n where p.prv is null"
        " and not exists (select from shardman.partitions q where (q.part_name, q.owner) = (p.part_name, n))"
        " limit 1",
    )[0]
    moved = acc.cmd("select shardman.move_part(%s, %s)", (part, away))
    assert moved.status == "success", moved
    assert tuned(acc) == [wanted] * 6
    acc.sql(1, "set shardman.ddl = 'here'; alter table app.acc_0_data set (fillfactor = 20)")
    assert any("storage" in str(found) for found in check(acc.lord_dsn))
    with as_bob(acc, 3) as bob:
        bob.execute(
            "alter table acc reset (fillfactor, toast.autovacuum_enabled), alter note reset (n_distinct)"
        )
    settled(acc)
    with as_bob(acc, 3) as bob:
        bob.execute("alter table acc drop column note, drop column twice")
    followed(acc)


def test_ddl_finds_what_was_changed_after_its_first_statement(acc: Cluster) -> None:
    """On other nodes DDL looks in the snapshot of its first statement there, and then waits for locks."""
    with psycopg.connect(acc.dsn(2)) as late, psycopg.connect(acc.dsn(2), autocommit=True) as other:
        other.execute("create table app.seen (id int); set shardman.ddl = 'here'")
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        late.execute("select 1")
        other.execute("truncate app.seen")
        late.execute("set local shardman.ddl = 'here'; alter table app.seen add column v int")
        # Twice in the catalog, to this transaction.
        twice = "select count(*), count(distinct oid) from pg_class where relname = 'seen'"
        assert late.execute(twice).fetchone() == (2, 1)
        found = late.execute(
            "select shardman.find_relation('app.seen') = 'app.seen'::regclass"
        ).fetchone()
        assert found == (True,)
        late.rollback()
        other.execute("drop table app.seen")


def test_a_copy_that_is_being_made_keeps_its_identity(acc: Cluster) -> None:
    """Its primary key comes after its rows; DDL in between does not let replication go by whole rows."""
    part, node = acc.sql(
        0,
        "select p.part_name, n from shardman.partitions p, generate_series(1, 3) n where p.prv is null"
        " and not exists (select from shardman.partitions q where (q.part_name, q.owner) = (p.part_name, n))"
        " limit 1",
    )[0]
    identity = f"select relreplident::text from pg_class where oid = '{part}_data'::regclass"
    acc.sql(node, "select shardman.make_data_table(%s, keys => false)", (part,))
    try:
        with as_bob(acc, 1) as bob:
            bob.execute(
                "alter table acc add column half int generated always as (v / 2) stored,"
                " add column own int default 1"
            )
            bob.execute("create index by_own on acc (own)")
        assert acc.value(node, identity) == "d"
        got = f"select half, own from {part}_data"
        assert acc.sql(node, got) == []
    finally:
        acc.sql(node, f"set shardman.ddl = 'here'; drop table {part}_data")
        with as_bob(acc, 1) as bob:
            bob.execute("alter table acc drop column half, drop column own")
    followed(acc)


def test_rows_are_changed_behind_ddl_when_a_partition_has_just_moved(acc: Cluster) -> None:
    """A migration does both in one transaction. The rows' way is not the DDL's until routes are exchanged."""
    part, away, third = acc.sql(
        0,
        "select p.part_name, n, 6 - p.owner - n from shardman.partitions p, generate_series(1, 3) n"
        " where p.prv is null and n <> p.owner and not exists"
        " (select from shardman.partitions q where (q.part_name, q.owner) = (p.part_name, n)) limit 1",
    )[0]
    with psycopg.connect(acc.dsn(third)) as before:
        # Until it ends, this node's route leads to where the partition was.
        before.execute("select 1")
        moved = acc.cmd("select shardman.move_part(%s, %s)", (part, away))
        assert moved.status == "success", moved
        ending = threading.Timer(0.5, before.rollback)
        ending.start()
        with as_bob(acc, third) as bob, bob.transaction():
            bob.execute("alter table acc add column nick text default ''")
            assert bob.execute("update acc set nick = id::text").rowcount == ROWS
        ending.join()
    with as_bob(acc, 1) as bob:
        bob.execute("alter table acc drop column nick")
    followed(acc)


def numbers(cluster: Cluster, sequence: str) -> list[tuple[object, ...]]:
    """Increment, cache and type of a sequence on all nodes that have it, and that their ranges are apart."""
    rows = [
        cluster.sql(
            n,
            "select min_value, max_value, data_type::text, increment_by, cache_size from pg_sequences"
            " where sequencename = %s",
            (sequence,),
        )[0]
        for n in (1, 2, 3)
    ]
    ranges = sorted(row[:2] for row in rows)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges)), ranges
    return [row[2:] for row in rows]


def test_sequences_are_altered_on_all_nodes(acc: Cluster) -> None:
    with as_bob(acc, 1) as bob:
        bob.execute("create table tag (id serial primary key, t text)")
        bob.execute("insert into tag (t) values ('a')")
    assert acc.cmd("select shardman.create_shared_table('app.tag', 1)").status == "success"
    for sequence in ("acc_serial_seq", "tag_id_seq"):
        with as_bob(acc, 3) as bob:
            bob.execute(
                f"alter sequence if exists {sequence} increment by 2 cache 5 no cycle".encode()
            )
            bob.execute(
                f"create sequence s; alter sequence {sequence} restart; drop sequence s".encode()
            )
        assert numbers(acc, sequence) == [("integer", 2, 5)] * 3
    followed(acc)
    with as_bob(acc, 2) as bob:
        # As Django sends them, for a column that is to be a BigAutoField.
        bob.execute('alter table "tag" alter column "id" type bigint using "id"::bigint')
        bob.execute('alter sequence if exists "tag_id_seq" as bigint')
        bob.execute("alter sequence acc_serial_seq owned by acc.serial")
        row = bob.execute("insert into tag (t) values ('b') returning id").fetchone()
    assert row and row[0] > 2**31
    assert numbers(acc, "tag_id_seq") == [("bigint", 2, 5)] * 3
    followed(acc)
    assert numbers(acc, "tag_id_seq") == [("bigint", 2, 5)] * 3
    with as_bob(acc, 3) as bob:
        bob.execute("delete from tag where id > 2000000000")
        bob.execute('alter table "tag" alter column "id" type integer using "id"::integer')
        bob.execute('alter sequence if exists "tag_id_seq" as integer')
        bob.execute("insert into tag (t) values ('c')")
    assert numbers(acc, "tag_id_seq") == [("integer", 2, 5)] * 3
    followed(acc)
    # The numbers of a sharded table: without replicas, which a new type would write anew.
    acc.sql(
        1,
        "create table app.plain (id int primary key, n serial); alter table app.plain owner to bob",
    )
    assert (
        acc.cmd("select shardman.create_hash_partitions(1, 'app.plain', 'id', 2)").status
        == "success"
    )
    with as_bob(acc, 2) as bob:
        bob.execute("alter table plain alter n type bigint")
        bob.execute("alter sequence plain_n_seq as bigint")
        bob.execute("truncate plain restart identity")
        row = bob.execute("insert into plain values (1) returning n").fetchone()
    assert row and row[0] > 2**31
    assert numbers(acc, "plain_n_seq") == [("bigint", 1, 1)] * 3
    followed(acc)
    for table in ("plain", "tag"):
        with as_bob(acc, 1) as bob:
            bob.execute(f"drop table {table}".encode())
    settled(acc)


def test_what_cannot_be_changes_nothing(acc: Cluster) -> None:
    before = columns(acc)
    acc.sql(1, "create role lonely")
    with as_bob(acc, 1) as bob:
        bob.execute(LONE)
        for statement, said in REFUSED:
            with pytest.raises(psycopg.Error, match=said):
                bob.execute(statement.encode())
            assert columns(acc) == before, statement
    with as_bob(acc, 1) as bob, pytest.raises(psycopg.errors.InsufficientPrivilege):
        bob.execute("select shardman.submit('rm_node', '{}')")
    # The reconciler may have let it in meanwhile: others have granted to everybody.
    acc.sql(1, "drop sequence app.lone; drop owned by lonely; drop role lonely")
    settled(acc)


def test_what_a_change_would_take_is_told_before(acc: Cluster) -> None:
    before = columns(acc)
    acc.sql(1, "analyze app.acc")
    with as_bob(acc, 1) as bob:
        for statement, work, locked in (
            ("alter table acc alter v type text", "written anew", "nobody reads"),
            ("alter table only app.acc add check (id > -9)", "are read", "nobody reads"),
            ("alter table acc add told int default 1", "catalogs only", "nobody reads"),
            ("create index told on acc (v, id);", "index is built", "nobody writes"),
            ("alter table acc add nr serial", "written anew", "nobody reads"),
        ):
            rows = bob.execute("select * from shardman.preview_change(%s)", (statement,)).fetchall()
            assert {r[0] for r in rows} == {1, 2, 3, None}, statement
            assert all(work in r[4] and locked in r[5] for r in rows[:-1]), rows
            _, copies, counted, *_, seconds = rows[-1]
            assert (
                copies == acc.value(0, "select count(*) from shardman.partitions") and seconds >= 0
            )
            # One replica of each row.
            assert ROWS < counted < 4 * ROWS
        for statement, said in (
            ("alter table acc alter v type uuid", "cannot be cast"),
            ("drop table acc", "not one ALTER TABLE"),
            ("alter table acc drop v; drop table acc", "not one ALTER TABLE"),
            ("alter table nowhere add x int", "neither sharded nor shared"),
            ("create index concurrently on acc (v)", "concurrently"),
            ("alter table acc add at timestamptz, alter v type money", "values that may differ"),
        ):
            with pytest.raises(psycopg.Error, match=said):
                bob.execute("select * from shardman.preview_change(%s)", (statement,))
    assert columns(acc) == before


def test_who_does_not_own_it_cannot(acc: Cluster) -> None:
    for node in NODES:
        acc.sql(
            node, "create role mallory login password 'm'; grant usage on schema app to mallory"
        )
    before = columns(acc)
    dsn = make_conninfo(acc.dsn(2), user="mallory", password="m")
    with psycopg.connect(dsn, autocommit=True) as mallory:
        for statement in (
            "alter table app.acc add no int",
            "create index on app.acc (v)",
            "comment on column app.acc.v is 'x'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of"):
                mallory.execute(statement.encode())
        for statement in (
            "set shardman.ddl_target = 'app.acc'; comment on table app.acc is 'x'",
            "insert into shardman.ddl values ('select 1', '', '0')",
            "select shardman.hold_copies('app.acc')",
            "select * from shardman.preview_change('alter table app.acc add no int')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                mallory.execute(statement.encode())
        mallory.execute("create temp table acc (id int); alter table acc add column mine int")
    assert columns(acc) == before


def test_a_node_that_is_away_refuses_and_one_added_later_has_it(acc: Cluster) -> None:
    before = columns(acc)
    acc.stop_node(3)
    try:
        with as_bob(acc, 1) as bob, pytest.raises(psycopg.Error, match="node 3 cannot be reached"):
            bob.execute("alter table acc add column no int")
    finally:
        acc.start_node(3)
    assert columns(acc) == before
    with as_bob(acc, 1) as bob:
        bob.execute("alter table acc add column late text default 'l'")
        bob.execute("create index by_late on acc (late)")
    settled(acc)
    dsn = acc.add_server()
    with psycopg.connect(dsn, autocommit=True) as server:
        server.execute(
            "create role bob login password 'b'; create role mallory; create role reader;"
            ' create role "Dora ö"'
        )
    added = acc.cmd("select shardman.add_node(%s)", (dsn,))
    assert added.status == "success", added
    done = acc.cmd("select shardman.sync_roles(role => 'Dora ö')")
    assert done.status in ("success", "done"), done
    part = acc.value(0, "select min(part_name) from shardman.partitions where prv is null")
    moved = acc.cmd("select shardman.move_part(%s, 4)", (part,))
    assert moved.status == "success", moved
    assert acc.sql(1, "select count(*), min(late) from app.acc") == [(ROWS, "l")]
    settled(acc)


STATISTICS = """
select string_agg(s, ', ' order by s) from (
    select case c.relkind when 'p' then 'table' else 'data' end
           || ' ' || regexp_replace(e.stxname, '_[0-9]$', '')
           || ' ' || pg_get_statisticsobjdef_columns(e.oid)
           || coalesce(' target ' || nullif((to_jsonb(e) ->> 'stxstattarget')::int, -1), '')
           || case c.relkind when 'p' then ' of ' || pg_get_userbyid(e.stxowner) else '' end as s
      from pg_statistic_ext e join pg_class c on c.oid = e.stxrelid
     where e.stxrelid in (select c.oid from pg_class c where relname ~ '^acc(_[0-9]_data)?$') group by 1) as x
"""


def statistics(cluster: Cluster) -> set[str | None]:
    """Of the workers, all of which have data tables."""
    return {cluster.value(n, STATISTICS) for n in NODES[1:]}


def test_extended_statistics_are_those_of_the_table_and_of_its_copies(acc: Cluster) -> None:
    with as_bob(acc, 2) as bob:
        bob.execute("alter table acc add column p int, add column q int")
        bob.execute('create statistics "Pairs" (ndistinct, mcv) on p, q from acc')
    with as_bob(acc, 3) as bob:
        bob.execute(
            'alter statistics "Pairs" rename to pairs; alter statistics pairs set statistics 40'
        )
        bob.execute("comment on statistics app.pairs is 'of both'")
        bob.execute("create statistics odd on (p + q) from acc")
        data, table = "odd (p + q)", "pairs p, q target 40"
        both = f"data {data}, data {table}, table {data} of bob, table {table} of bob"
        assert statistics(acc) == {both}
        for query in ("begin", "drop statistics odd", "rollback"):
            bob.execute(query.encode())
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="on this node only"):
            bob.execute("do $$ begin perform 1; drop statistics app.odd; end $$")
        bob.execute("drop statistics if exists odd, nobodys")
    only = "data pairs p, q target 40, table pairs p, q target 40 of bob"
    assert statistics(acc) == {only}
    followed(acc)
    # What one node has lost comes back, and who is new gets what there is.
    acc.sql(2, "set shardman.ddl = 'here'; drop statistics app.pairs")
    acc.sql(2, "select shardman.reconcile()")
    assert statistics(acc) == {only}
    with as_bob(acc, 1) as bob:
        # They go with a column.
        bob.execute("alter table acc drop column p; alter table acc drop column q")
    assert statistics(acc) == {None}
    settled(acc)


def test_checks_that_are_not_valid_yet_are_no_obstacle(acc: Cluster) -> None:
    """Rows that break it are moved, and get replicas."""
    with as_bob(acc, 2) as bob:
        bob.execute("alter table acc add column bad int default 7")
        bob.execute("alter table acc add constraint good check (bad <> 7) not valid")
        with pytest.raises(psycopg.errors.CheckViolation):
            bob.execute("update acc set bad = 7")
        followed(acc)
        owner = "select p.owner from shardman.partitions p where p.part_name = 'app.acc_0' and p.prv is null"
        level = "set_replevel('app.acc', {})".format
        for command in (level(0), "move_part('app.acc_0', {})", level(1)):
            other = int(acc.value(0, owner) or 0) % 3 + 1
            done = acc.cmd(f"select shardman.{command.format(other)}".encode())  # type: ignore[arg-type]
            assert done.status in ("success", "done"), done
        settled(acc)
        assert acc.value(2, "select count(*) from app.acc where bad = 7") == ROWS
        bob.execute("update acc set bad = 1")
        bob.execute("alter table acc validate constraint good")
        bob.execute("alter table acc drop column bad")
    settled(acc)


def test_two_indexes_may_say_the_same(acc: Cluster) -> None:
    """On one server they are two, and so they are on each copy."""
    with as_bob(acc, 1) as bob, as_bob(acc, 2) as other:
        bob.execute("create index alike_1 on acc (v, id)")
        other.execute("create index alike_2 on acc (v, id)")
        settled(acc)
        bob.execute("create index alike_3 on acc (v, id)")
        bob.execute("drop index alike_2")
        settled(acc)
        part, there = acc.sql(
            0,
            "select p.part_name, r.owner from shardman.partitions p"
            " join shardman.partitions r using (part_name)"
            " where p.relation = 'app.acc' and p.prv is null and r.prv is not null limit 1",
        )[0]
        assert acc.cmd("select shardman.switch_primary(%s, %s)", (part, there)).status == "success"
        other.execute("drop index alike_1")
        settled(acc)
        other.execute("drop index alike_3")
        settled(acc)


def test_a_table_is_dropped_everywhere(acc: Cluster) -> None:
    with as_bob(acc, 2) as bob:
        bob.execute("set shardman.ddl = 'here'; create view seen as select * from acc")
    refused = acc.cmd("select shardman.drop_table('app.acc')")
    assert "view app.seen on node 2 needs" in (refused.error or ""), refused
    with as_bob(acc, 2) as bob:
        bob.execute("drop view seen")
    # As after a failover.
    part = acc.value(0, "select min(part_name) from shardman.partitions")
    failover = acc.value(
        0,
        "insert into shardman.cmd_log (cmd_type, status, ended_at)"
        " values ('failover', 'success', now()) returning id",
    )
    aside = f"{part}_aside_c{failover}"
    acc.sql(1, f"create table {aside} (id int)")
    eventually(
        "node 1 knows what was set aside",
        lambda: acc.value(
            1, "select count(*) from shardman.set_aside where part_name = %s", (part,)
        ),
    )
    refused = acc.cmd("select shardman.drop_table('app.acc')")
    assert f"{aside} on node 1, which a failover has set aside" in (refused.error or ""), refused
    assert acc.value(0, "select count(*) from shardman.partitions where prv is not null")
    done = acc.cmd("select shardman.drop_table('app.acc', aside => true)")
    assert done.status == "success", done
    left = "select count(*) from pg_class where relnamespace = 'app'::regnamespace"
    assert [acc.value(n, left) for n in NODES] == [0, 0, 0, 0]
    assert acc.value(0, "select count(*) from shardman.tables") == 0
    settled(acc)
