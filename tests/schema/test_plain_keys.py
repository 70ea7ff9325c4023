"""Keys, foreign keys, columns and unique indexes come and go by plain DDL of an ordinary role."""

from __future__ import annotations

import contextlib
import random
import threading

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from schema.bob import NODES, ROWS, WORKERS, as_bob, move_in, ok, value
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

SCHEMA = """
create table "Land" (code text primary key, name text);
insert into "Land" select 'c' || i, 'n' || i from generate_series(0, 9) i;
create table acc (id int primary key, v int not null default 0, "Where?" text, unique (id, v));
insert into acc select i, i, 'c' || i % 10 from generate_series(1, 60) i;
create table entry (acc int, n int, v int, primary key (acc, n));
create unique index of_before on entry (acc, (v + n));
insert into entry select i, 1, i from generate_series(1, 60) i;
create table log (id int, t text);
insert into log select i, 't' from generate_series(1, 60) i;
"""
#: On a node: the constraints of some kinds that its copies of a table have.
CONSTRAINTS = """
select c.relname, o.conname, pg_get_constraintdef(o.oid), c.relispartition
  from pg_constraint o join pg_class c on c.oid = o.conrelid
 where o.contype = any (%s) and c.relname ~ ('^' || %s || '_[0-9]+_data$') order by 1, 2
"""


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    """Bob's tables, one without a key, with replicas; a shared table of his, and one of another's."""
    cluster.sql(1, "create table secret (id int primary key); insert into secret values (1)")
    commands = (
        "select shardman.create_shared_table('app.\"Land\"', 1)",
        "select shardman.create_shared_table('secret', 1)",
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 6)",
        "select shardman.create_hash_partitions(1, 'app.entry', 'acc', colocate_with => 'app.acc')",
        "select shardman.create_hash_partitions(1, 'app.log', 'id', 3)",
        "select shardman.set_replevel('app.acc', 1)",
        "select shardman.set_replevel('app.log', 1)",
    )
    move_in(cluster, SCHEMA, commands, "log")
    return cluster


def send(cluster: Cluster, node: int, query: str) -> None:
    with as_bob(cluster, node) as bob:
        bob.execute(query.encode())


def settled(cluster: Cluster) -> None:
    eventually("what was submitted has ended", lambda: not cluster.commands_left())
    assert check(cluster.lord_dsn, data=True, patience=30) == []
    for node in NODES:
        assert cluster.sql(node, "select nspname from pg_namespace where nspname ~ 'behind'") == []


def on_copies(cluster: Cluster, table: str, *kinds: str) -> list[tuple[str, ...]]:
    return [r for n in WORKERS for r in cluster.sql(n, CONSTRAINTS, (list(kinds), table))]


def moved(cluster: Cluster, table: str) -> str:
    """Moves a partition of a table to the node without a copy of it, and says which it is."""
    part = cluster.value(
        0, "select min(part_name) from shardman.partitions where relation = %s", (f"app.{table}",)
    )
    copies = cluster.sql(0, "select owner from shardman.partitions where part_name = %s", (part,))
    ok(
        cluster,
        "select shardman.move_part(%s, %s)",
        part,
        next(n for n in WORKERS if (n,) not in copies),
    )
    return str(part)


def test_a_column_with_a_foreign_key(acc: Cluster) -> None:
    """As Django sends it for AddField(ForeignKey)."""
    send(
        acc,
        2,
        'ALTER TABLE "acc" ADD COLUMN "land_id" text NULL CONSTRAINT "acc_land_fk" REFERENCES "Land"("code") '
        'DEFERRABLE INITIALLY DEFERRED; SET CONSTRAINTS "acc_land_fk" IMMEDIATE',
    )
    found = on_copies(acc, "acc", "f")
    assert len(found) == 6
    assert {(r[1], r[3]) for r in found} == {("acc_land_fk", True)}
    for node in WORKERS:
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="acc_land_fk"):
            send(acc, node, f"insert into acc (id, land_id) values ({1000 + node}, 'nowhere')")
        send(acc, node, f"update acc set land_id = 'c{node}' where id = {node}")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        send(acc, 1, """delete from "Land" where code = 'c2'""")
    settled(acc)
    moved(acc, "acc")
    eventually(
        "the moved one has it too", lambda: len(on_copies(acc, "acc", "f")), until=lambda n: n == 6
    )
    settled(acc)
    for _ in range(3):
        send(acc, 1, 'alter table acc add foreign key (land_id) references "Land" (code)')
    assert {r[1] for r in on_copies(acc, "acc", "f")} == {"acc_land_fk", "acc_land_id_fkey"}
    send(acc, 2, "alter table acc drop constraint acc_land_id_fkey")
    send(acc, 3, "alter table acc drop constraint acc_land_fk")
    for node in NODES:
        acc.sql(node, "select shardman.reconcile()")
    assert on_copies(acc, "acc", "f") == []
    settled(acc)
    for node in NODES:
        acc.sql(node, "select shardman.reconcile()")
        assert acc.sql(node, "select * from shardman.changed_constraints") == []
    assert on_copies(acc, "acc", "f") == []


def test_with_other_ddl_in_one_transaction_it_is_whole_or_nothing(acc: Cluster) -> None:
    """As Alembic sends it."""
    with as_bob(acc, 1, autocommit=False) as bob:
        bob.execute("alter table acc add column land text")
        bob.execute(
            'alter table acc add foreign key (land) references "Land" (code) on delete set null'
        )
        bob.execute("alter table acc add constraint once unique (id, land)")
        bob.execute("update acc set land = 'c1' where id < 10")
        bob.rollback()
        assert on_copies(acc, "acc", "f") == []
        bob.execute("alter table acc add column land text")
        bob.execute("update acc set land = 'nowhere' where id = 7")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            bob.execute('alter table acc add foreign key (land) references "Land"')
        bob.rollback()
        bob.execute("alter table acc add column land text")
        bob.execute(
            'alter table acc add foreign key (land) references "Land" (code) on delete set null'
        )
        bob.execute("alter table acc add constraint self foreign key (id) references acc")
        bob.commit()
    assert {r[1] for r in on_copies(acc, "acc", "f")} == {"acc_land_fkey", "self"}
    assert len(on_copies(acc, "acc", "f")) == 12
    send(acc, 2, "update acc set land = 'c9' where id = 5")
    send(acc, 3, """delete from "Land" where code = 'c9'""")
    assert value(acc, 1, "select land from acc where id = 5") is None
    settled(acc)
    # Another one of that name, given by hand to one data table, is no foreign key of the table.
    name = on_copies(acc, "acc", "f")[0][0]
    node = next(
        n
        for n in WORKERS
        if acc.value(n, "select relispartition from pg_class where relname = %s", (name,))
    )
    acc.sql(
        node,
        f"set shardman.ddl = 'here'; alter table app.{name} drop constraint acc_land_fkey,"
        f' add constraint acc_land_fkey foreign key (land) references app."Land" (code) on delete cascade',
    )
    acc.sql(node, "select shardman.reconcile()")
    assert {r[2] for r in on_copies(acc, "acc", "f") if r[1] == "acc_land_fkey"} == {
        'FOREIGN KEY (land) REFERENCES app."Land"(code) ON DELETE SET NULL',
        'FOREIGN KEY (land) REFERENCES app."Land"(code) ON DELETE SET NULL NOT VALID',
    }
    send(acc, 2, "alter table acc drop constraint self, drop constraint acc_land_fkey")
    settled(acc)


def test_keys_come_and_go(acc: Cluster) -> None:
    send(acc, 3, 'alter table acc add constraint "once, only" unique (id, "Where?")')
    assert len([r for r in on_copies(acc, "acc", "u") if "Where?" in r[2]]) == 12
    settled(acc)
    moved(acc, "acc")
    assert len([r for r in on_copies(acc, "acc", "u") if "Where?" in r[2]]) == 12
    send(acc, 1, 'alter table acc drop constraint "once, only"')
    for node in NODES:
        acc.sql(node, "select shardman.reconcile()")
        assert (
            acc.sql(
                node,
                "select from pg_constraint where conrelid = 'app.acc'::regclass and conname ~ 'once'",
            )
            == []
        )
    assert [r for r in on_copies(acc, "acc", "u") if "Where?" in r[2]] == []
    settled(acc)
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("insert into log values (1, 'again')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            bob.execute("alter table log add primary key (id)")
    settled(acc)


def test_replicas_follow_by_the_key_that_there_is(acc: Cluster) -> None:
    identities = "select distinct relreplident from pg_class where relname ~ '^log_[0-9]_data'"
    send(acc, 2, "alter table log add primary key (id)")
    assert {r[0] for n in WORKERS for r in acc.sql(n, identities)} == {"d"}
    assert len(on_copies(acc, "log", "p")) == 6
    send(acc, 1, "update log set t = 'p'")
    with pytest.raises(psycopg.errors.UniqueViolation):
        send(acc, 3, "insert into log values (7)")
    settled(acc)
    moved(acc, "log")
    send(acc, 3, "alter table log drop constraint log_pkey")
    assert {r[0] for n in WORKERS for r in acc.sql(n, identities)} == {"f"}
    assert on_copies(acc, "log", "p") == []
    send(acc, 1, "update log set t = 'full'")
    send(acc, 2, "delete from log where id = 60")
    settled(acc)
    # So it is where a column takes the key along.
    send(acc, 3, "alter table log add column part int not null default 1")
    send(acc, 1, "alter table log add primary key (id, part)")
    assert {r[0] for n in WORKERS for r in acc.sql(n, identities)} == {"d"}
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("alter table log drop column part")
        bob.execute("update log set t = 'full again'")
        bob.execute("delete from log where id = 59")
        bob.commit()
    assert {r[0] for n in WORKERS for r in acc.sql(n, identities)} == {"f"}
    settled(acc)
    moved(acc, "log")
    settled(acc)


def test_defaults_are_the_same_on_all_copies(acc: Cluster) -> None:
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("alter table acc add column at timestamptz not null default now()")
        bob.execute("alter table acc add column u uuid default gen_random_uuid()")
        bob.execute("alter table acc add column w uuid not null default gen_random_uuid()")
        bob.execute("alter table acc add column r double precision default random() check (r >= 0)")
        bob.commit()
    assert value(acc, 3, "select count(distinct at) from acc") == 1
    counted = "select concat_ws(' ', count(distinct u), count(distinct w), count(r)) from acc"
    assert value(acc, 1, counted) == f"{ROWS} {ROWS} {ROWS}"
    settled(acc)
    send(acc, 1, "alter table acc alter column u set not null")
    send(acc, 3, "insert into acc (id) values (500)")
    assert value(acc, 1, "select at > (select min(at) from acc) from acc where id = 500") is True
    settled(acc)
    send(acc, 1, "delete from acc where id = 500")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("add primary key (v)", "multiple primary keys"),
        ("add unique (v)", "must include all partitioning columns"),
        ("add unique (id, v) deferrable initially deferred", "cannot be DEFERRABLE"),
        (
            "add constraint x unique using index y",
            "makes no key of a partitioned table of an index",
        ),
        ("add foreign key (id) references log (id)", "neither a shared table nor colocated"),
        ("add foreign key (id) references secret", "permission denied for table secret"),
        (
            "add foreign key (id) references public.secret (id)",
            "permission denied for table secret",
        ),
        ('add foreign key ("Where?") references "Land" not valid', "NOT VALID"),
        (
            'add foreign key ("Where?") references "Land", drop column v',
            "in one statement with other things",
        ),
        ('add foreign key (v) references "Land"', "cannot be implemented"),
        ("drop constraint nix", "does not exist"),
    ],
)
def test_what_cannot_be_is_refused(acc: Cluster, change: str, said: str) -> None:
    with as_bob(acc, 2) as bob:
        bob.execute("set search_path = app, public")
        with pytest.raises(psycopg.Error, match=said):
            bob.execute(f"alter table acc {change}".encode())


#: Of relations whose names match: their unique indexes, valid where rows are.
UNIQUES = """
select c.relname, regexp_replace(x.relname, '_[0-9]+$', ''),
       substring(pg_get_indexdef(i.indexrelid) from ' USING .*')
  from pg_index i join pg_class x on x.oid = i.indexrelid join pg_class c on c.oid = i.indrelid
 where i.indisunique and i.indisvalid = (c.relkind = 'r') and c.relname ~ %s
   and not exists (select from pg_constraint o where o.conindid = i.indexrelid)
"""


def uniques(cluster: Cluster, table: str) -> set[tuple[str, ...]]:
    """Name and text of its unique indexes, alike on all nodes and on all of its copies."""
    on_table = [{r[1:] for r in cluster.sql(n, UNIQUES, (f"^{table}$",))} for n in NODES]
    on_copies: dict[tuple[int, str], set[tuple[str, ...]]] = {
        (n, r[0]): set()
        for n in WORKERS
        for r in cluster.sql(
            n, "select relname from pg_class where relname ~ %s", (f"^{table}_[0-9]_data$",)
        )
    }
    for node in WORKERS:
        for row in cluster.sql(node, UNIQUES, (f"^{table}_[0-9]_data$",)):
            on_copies[node, row[0]].add(row[1:])
    assert [*on_table, *on_copies.values()] == [on_table[0]] * (4 + len(on_copies))
    return on_table[0]


def test_unique_indexes_come_and_go(acc: Cluster) -> None:
    """As Rails, Sequelize, Prisma and Alembic send them."""
    assert uniques(acc, "acc") == set()
    send(acc, 2, 'CREATE UNIQUE INDEX "index_acc_on_id_and_v" ON "acc" ("id", "v")')
    with as_bob(acc, 3, autocommit=False) as bob:
        bob.execute("savepoint a")
        bob.execute('create unique index "odd \\ \'n" on acc (v, id)')
        bob.execute("rollback to savepoint a")
        bob.execute('CREATE UNIQUE INDEX IF NOT EXISTS "odd \\ \'n" ON "app"."acc"("id", (v + 1))')
        bob.execute('CREATE UNIQUE INDEX IF NOT EXISTS "odd \\ \'n" ON "app"."acc"("id")')
        bob.execute("alter table acc add column part int")
        bob.execute("create unique index on acc (id, part) include (v) where part > 3")
        bob.execute("insert into acc (id, part) values (700, 4)")
        bob.commit()
    odd = ("odd \\ 'n", " USING btree (id, ((v + 1)))")
    named = {("index_acc_on_id_and_v", " USING btree (id, v)"), odd}
    some = ("acc_id_part_v_idx", " USING btree (id, part) INCLUDE (v) WHERE (part > 3)")
    assert uniques(acc, "acc") == {*named, some}
    settled(acc)
    moved(acc, "acc")
    assert uniques(acc, "acc") == {*named, some}
    send(acc, 1, "alter index index_acc_on_id_and_v rename to again")
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("comment on index again is 'said'")
        bob.execute("alter table acc alter column v type bigint, drop column part")
        bob.execute("drop index if exists nix")
        bob.commit()
    assert uniques(acc, "acc") == {("again", " USING btree (id, v)"), odd}
    settled(acc)
    send(acc, 3, 'drop index again; DROP INDEX "odd \\ \'n"')
    send(acc, 1, "delete from acc where id = 700")
    assert uniques(acc, "acc") == set()
    settled(acc)
    for node in NODES:
        acc.sql(node, "select shardman.reconcile()")
        assert acc.sql(node, "select * from shardman.changed_constraints") == []
    assert uniques(acc, "acc") == set()


def test_a_unique_index_holds(acc: Cluster) -> None:
    with as_bob(acc, 2) as bob:
        bob.execute("insert into log values (58, 'twice'), (58, 'twice')")
        with pytest.raises(psycopg.errors.UniqueViolation, match="could not create"):
            bob.execute("create unique index once on log (id, t)")
        bob.execute("delete from log where t = 'twice'")
        bob.execute("create unique index once on log (t, id)")
        with pytest.raises(psycopg.errors.UniqueViolation, match=r'"once_\d"'):
            bob.execute("insert into log values (58, 'twice'), (58, 'twice')")
        bob.execute("drop index once")
    settled(acc)


def test_that_of_a_table_before_is_one(acc: Cluster) -> None:
    of_before = {("of_before", " USING btree (acc, ((v + n)))")}
    assert uniques(acc, "entry") == of_before
    for count in (3, 6):
        ok(acc, f"select shardman.set_partitions_count('app.acc', {count})")
        assert uniques(acc, "entry") == of_before
    send(acc, 3, "drop index of_before")
    assert uniques(acc, "entry") == set()
    settled(acc)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("x on acc (v)", "The index lacks id, by which the rows of app.acc are distributed"),
        ("x on acc (v, lower(id::text))", 'on table "acc" lacks column "id" which is part of'),
        ("if not exists x on acc (v)", "The index lacks id, by which the rows of app.acc are"),
        ("concurrently x on acc (id, v)", "create_index_concurrently('create unique index x on"),
        ("acc_pkey on acc (id, v)", "already exists"),
    ],
)
def test_unique_indexes_that_cannot_be(acc: Cluster, index: str, said: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        send(acc, 2, f"create unique index {index}")
    diag = refused.value.diag
    assert said in f"{diag.message_primary} {diag.message_detail} {diag.message_hint}"


def test_who_reads_and_then_writes_meets_no_error(acc: Cluster) -> None:
    ended, errors = threading.Event(), []

    def client(number: int) -> None:
        with as_bob(acc, 1 + number % 3, autocommit=False) as bob:
            while not ended.is_set():
                row = (number + 6 * random.randint(0, 8) + 1,)
                try:
                    bob.execute("select v from acc where id = %s", row)
                    bob.execute("update acc set v = v + 1 where id = %s", row)
                    bob.commit()
                except psycopg.Error as error:
                    errors.append(str(error))
                    return
                # To be between two transactions now and then.
                ended.wait(0.03)

    clients = [threading.Thread(target=client, args=(k,)) for k in range(6)]
    for each in clients:
        each.start()
    try:
        for _ in range(3):
            send(acc, 2, "alter table acc add column passing int")
            send(acc, 3, "alter table acc drop column passing")
    finally:
        ended.set()
        for each in clients:
            each.join()
    assert errors == []


def test_nobody_locks_a_table_that_is_not_his(acc: Cluster) -> None:
    """What the gate locks for a foreign key that goes, it locks for who has one to that table."""
    for call in (
        "select shardman.hold_named('secret')",
        "select shardman.hold_referred_to('app.acc', 'secret')",
        "select shardman.hold_table('app.acc', 'refers secret')",
        "select shardman.hold_table('app.acc', 'referred secret')",
    ):
        with as_bob(acc, 2, autocommit=False) as bob:
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                bob.execute(call.encode())
            locks = acc.sql(
                2, "select mode from pg_locks where relation = 'secret'::regclass and granted"
            )
            assert locks == [], call


def test_who_was_let_refer_may(acc: Cluster) -> None:
    for node in WORKERS:
        with acc.connect(node) as conn:
            conn.execute("set shardman.ddl = 'here'; grant references (id) on secret to bob")
    send(acc, 3, "alter table acc add column x int references public.secret (id)")
    send(acc, 1, "update acc set x = 1 where id = 3")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        send(acc, 2, "update acc set x = 2 where id = 4")
    send(acc, 1, "alter table acc drop column x")
    assert on_copies(acc, "acc", "f") == []
    settled(acc)


def test_a_foreign_key_between_colocated_tables(acc: Cluster) -> None:
    add = (
        "alter table entry add constraint of_acc foreign key (acc) references acc on delete cascade"
    )
    # Other tests have written to the other table.
    send(acc, 1, "update entry set v = null")
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute(add.encode())
        bob.execute("insert into entry values (1, 2, 0)")
        bob.rollback()
        bob.execute(add.encode())
        bob.execute("alter table entry add column w int")
        bob.execute('alter table acc add unique (id, "Where?", v)')
        bob.execute(
            "alter table entry add constraint of_both foreign key (acc, v) references acc (id, v),"
            " add constraint of_new foreign key (acc, w) references acc (id, v) on delete set null (w)"
        )
        bob.execute("savepoint s")
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="of_acc"):
            bob.execute("insert into entry values (0, 1, null)")
        bob.execute("rollback to s")
    made = on_copies(acc, "entry", "f")
    assert [r[1] for r in made] == ["of_acc", "of_both", "of_new"] * 6
    assert all(in_use for *_, in_use in made)
    settled(acc)
    for node in WORKERS:
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="of_acc"):
            send(acc, node, f"insert into entry values ({-node}, 1, null)")
    moved(acc, "acc")
    assert len(on_copies(acc, "entry", "f")) == 18
    send(acc, 3, "delete from acc where id = 60")
    assert value(acc, 1, "select count(*) from entry") == ROWS - 1
    send(acc, 1, "alter table entry drop constraint of_both, drop constraint of_new")
    with as_bob(acc, 3, autocommit=False) as bob:
        bob.execute("alter table entry drop constraint of_acc, add column more int default 1")
        bob.execute("insert into entry values (0, 1, null)")
    settled(acc)
    assert on_copies(acc, "entry", "f") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("alter table entry add foreign key (n) references acc", "partitions|rows|distributed"),
        ("alter table entry add column other int references acc", "must have acc, by which"),
        ("alter table entry add foreign key (v) references acc (v)", "no unique constraint"),
        ("alter table entry add foreign key (acc) references log", "neither a shared table nor"),
        ("alter table acc add foreign key (id) references entry (acc)", "no unique constraint"),
        ("create table x (id int primary key, acc int references acc)", "acc is sharded, and only"),
        ("alter table plain add foreign key (id) references acc", "acc is sharded, and only"),
        ('alter table "Land" add foreign key (name) references acc', "acc is sharded, and only"),
    ],
)
def test_what_cannot_refer_is_told_why(acc: Cluster, change: str, said: str) -> None:
    with as_bob(acc, 1, autocommit=False) as bob:
        bob.execute("create table plain (id int)")
        with pytest.raises(psycopg.Error, match=said):
            bob.execute(change.encode())


def test_who_may_give_no_rights_hears_it_as_on_one_server(acc: Cluster) -> None:
    acc.sql(1, "create role zoe login password 'z'; create table mere (id int)")
    acc.sql(1, "grant usage on schema app to zoe")
    dsn = make_conninfo(acc.dsn(1), user="zoe", password="z")
    with psycopg.connect(dsn, autocommit=True) as zoe:
        for verb in ("grant select on {} to public", "revoke insert on {} from public"):
            said = []
            for table in ("mere", "app.acc"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
                    zoe.execute(verb.format(table).encode())
                said.append(str(refused.value.diag.message_primary))
            assert said == ["permission denied for table mere", "permission denied for table acc"]
        acc.sql(1, "set shardman.ddl = 'here'; grant select on app.acc to zoe with grant option")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="on this node only"):
            zoe.execute("grant select on app.acc to public")
