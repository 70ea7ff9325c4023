"""Foreign keys, keys and indexes after a table was sharded, of an ordinary role, with odd names."""

from __future__ import annotations

import threading
from typing import Self

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from schema.bob import NODES, ROWS, WORKERS, as_bob, move_in, ok, value
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster, CommandResult
from shardman.testing.waiting import eventually

SCHEMA = """
create table "Land" (code text primary key, name text);
insert into "Land" select 'c' || i, 'n' || i from generate_series(0, 9) i;
create table acc (
    id int primary key, v int not null default 0, "Where?" text, name text,
    unique (id, v));
insert into acc select i, i, 'c' || i % 10, 'n' || i from generate_series(1, 60) i;
"""
#: On a node: its data tables that have a foreign key, and whether it is validated.
KEYS = """
select c.relname, o.conname, o.convalidated, c.relispartition, pg_get_constraintdef(o.oid)
  from pg_constraint o join pg_class c on c.oid = o.conrelid
 where o.contype = 'f' and c.relname ~ '^acc_[0-9]+_data' order by 1, 2
"""


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    """Bob's table, with a replica of each partition, and his shared one; another shared one is not his."""
    cluster.sql(1, "create table secret (id int primary key); insert into secret values (1)")
    commands = (
        "select shardman.create_shared_table('app.\"Land\"', 1)",
        "select shardman.create_shared_table('secret', 1)",
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 6)",
        "select shardman.set_replevel('app.acc', 1)",
    )
    move_in(cluster, SCHEMA, commands, "acc")
    return cluster


def bobs(cluster: Cluster, node: int, query: str, *params: object) -> CommandResult:
    """A command that bob submits."""
    return cluster.wait(int(str(value(cluster, node, query, *params))))


def settled(cluster: Cluster) -> None:
    eventually("what was submitted has ended", lambda: not cluster.commands_left())
    assert check(cluster.lord_dsn, data=True, patience=30) == []


class Writers:
    """Bob's clients, one through each worker, who meet no error."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.ended, self.done = cluster, threading.Event(), 0
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in WORKERS]

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
            ids = range(node, ROWS, 3)
            while not self.ended.is_set():
                try:
                    bob.execute(
                        "update acc set name = name || '.' where id = %s",
                        (ids[self.done % len(ids)],),
                    )
                except psycopg.Error as error:
                    self.errors.append(str(error))
                    return
                self.done += 1


ADD = "select shardman.add_foreign_key('app.acc', %s, %s)"
DROP = "select shardman.drop_foreign_key('app.acc', %s)"
TEXT = 'foreign key ("Where?") references app."Land" on update cascade on delete cascade'


def foreign_keys(cluster: Cluster) -> list[tuple[object, ...]]:
    return [row for node in WORKERS for row in cluster.sql(node, KEYS)]


def test_a_foreign_key_comes_and_goes_while_others_write(acc: Cluster) -> None:
    with Writers(acc) as writers:
        done = bobs(acc, 2, ADD, 'the "land"', TEXT)
        assert done.status == "success", done
    assert writers.errors == []
    assert writers.done
    found = foreign_keys(acc)
    assert len(found) == 6
    assert {row[1:4] for row in found} == {('the "land"', True, True)}
    for node in WORKERS:
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match='the "land"'):
            value(acc, node, "insert into acc values (1000, 1, 'x') returning 1")
    with as_bob(acc, 3) as bob:
        bob.execute("""update "Land" set code = 'C1' where code = 'c1'""")
        bob.execute("""delete from "Land" where code = 'c2'""")
    counted = """select count(*), count(*) filter (where "Where?" = 'C1') from acc"""
    assert acc.sql(1, counted.replace("acc", "app.acc")) == [(54, 6)]
    settled(acc)
    part, src = acc.sql(
        0, "select part_name, owner from shardman.partitions where prv is null order by 1 limit 1"
    )[0]
    replica = acc.value(
        0, "select owner from shardman.partitions where part_name = %s and prv is not null", (part,)
    )
    dest = next(n for n in WORKERS if n not in (src, replica))
    ok(acc, "select shardman.move_part(%s, %s)", part, dest)
    eventually(
        "the moved one has it too, and is validated",
        lambda: {row[1:4] for row in foreign_keys(acc)},
        until=lambda found: found == {('the "land"', True, True)} and len(foreign_keys(acc)) == 6,
        seconds=60,
    )
    with Writers(acc) as writers:
        done = bobs(acc, 1, DROP, 'the "land"')
        assert done.status == "success", done
    assert writers.errors == []
    assert foreign_keys(acc) == []
    ok(acc, "select shardman.switch_primary(%s, %s)", part, replica)
    assert foreign_keys(acc) == []
    settled(acc)
    assert bobs(acc, 1, DROP, 'the "land"').error == (
        'app.acc has no foreign key the "land". It has none.'
    )


def test_rows_that_break_it_end_the_command(acc: Cluster) -> None:
    with as_bob(acc, 1) as bob:
        bob.execute("update acc set \"Where?\" = 'nowhere' where id in (7, 8, 9)")
    done = bobs(acc, 3, ADD, "fk", TEXT)
    assert done.status == "failed"
    assert '3 rows of app.acc refer to nothing, such as ("Where?")=(nowhere)' in (done.error or "")
    assert foreign_keys(acc) == []
    with as_bob(acc, 1) as bob:
        bob.execute("update acc set \"Where?\" = 'c3' where id in (7, 8, 9)")
    done = bobs(acc, 2, ADD, "fk", 'foreign key (v) references app."Land" (code)')
    assert done.status == "failed"
    assert "cannot be made" in (done.error or "")
    assert foreign_keys(acc) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT + "; drop table secret", "not the text of a foreign key"),
        (TEXT + ", add column x int", "not the text of a foreign key"),
        (TEXT + " not valid", "not the text of a foreign key"),
        ("check (v > 0)", "not the text of a foreign key"),
        ('foreign key (nix) references app."Land"', "has no column nix"),
        ("foreign key (v) references secret", "permission denied for table secret"),
        ("foreign key (v) references secret (id)", "permission denied for table secret"),
        ("foreign key (v) references pg_authid (oid)", "neither a shared table nor colocated"),
        ("foreign key (id) references secret on delete set null", "by which rows of"),
    ],
)
def test_what_cannot_be_is_refused_at_the_call(acc: Cluster, text: str, said: str) -> None:
    with pytest.raises(psycopg.Error, match=said):
        value(acc, 2, ADD, "fk", text)


def test_only_its_owner_changes_them(acc: Cluster) -> None:
    for node in NODES:
        acc.sql(node, "create role eve login password 'b'; grant usage on schema shardman to eve")
    dsn = make_conninfo(acc.dsn(1), user="eve", password="b")
    with psycopg.connect(dsn, autocommit=True) as eve:
        for query, params in ((ADD, ("fk", TEXT)), (DROP, ("fk",))):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
                eve.execute(query, params)
    # Who was let refer to it may.
    for node in WORKERS:
        with acc.connect(node) as conn:
            conn.execute("set shardman.ddl = 'here'; grant references (id) on secret to bob")
    done = bobs(acc, 1, ADD, "fk", "foreign key (v) references secret (id)")
    assert "refer to nothing" in (done.error or "")


def test_alter_table_says_what_can_be_done(acc: Cluster) -> None:
    change = 'add foreign key ("Where?") references "Land" not valid'
    with as_bob(acc, 2) as bob, pytest.raises(psycopg.Error) as refused:
        bob.execute(f"alter table acc {change}".encode())
    assert "shardman.add_foreign_key('app.acc'" in (refused.value.diag.message_hint or "")


CONCURRENTLY = "select shardman.create_index_concurrently(%s)"
#: On a node: the copies of partitions, and whether they have a valid index of that definition.
BUILT = """
select c.relname, bool_or(i.indisvalid) from pg_class c
  left join pg_index i on i.indrelid = c.oid and pg_get_indexdef(i.indexrelid) like %s
 where c.relname ~ '^acc_[0-9]+_data$' group by 1
"""
INVALID = """
select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
 where not i.indisvalid and not exists (select from pg_constraint o where o.conindid = c.oid)
   and not (i.indisunique and c.relkind = 'I' and c.relname = 'once')
"""


def built(cluster: Cluster, like: str) -> list[bool]:
    """Of each copy, whether it has the index; on no node is one that is not built."""
    assert [row for n in NODES for row in cluster.sql(n, INVALID)] == []
    return [bool(row[1]) for n in WORKERS for row in cluster.sql(n, BUILT, (like,))]


def test_an_index_is_built_while_others_write(acc: Cluster) -> None:
    with Writers(acc) as writers:
        text = 'create index concurrently "By name" on app.acc (lower(name)) where v > 3'
        done = bobs(acc, 3, CONCURRENTLY, text)
        assert done.status == "success", done
        done = bobs(acc, 1, CONCURRENTLY, "CREATE UNIQUE INDEX once ON app.acc (name, id)")
        assert done.status == "success", done
    assert writers.errors == []
    assert built(acc, "%lower(name)%") == [True] * 12
    assert built(acc, "CREATE UNIQUE%(name, id)%") == [True] * 12
    for node in NODES:
        found = acc.sql(
            node,
            "select indexname from pg_indexes where tablename = 'acc' and indexname !~ '_key|_pkey'",
        )
        assert sorted(found) == [("By name",), ("once",)]
    settled(acc)
    # What is made later has them too.
    part = acc.value(0, "select min(part_name) from shardman.partitions")
    copies = acc.sql(0, "select owner from shardman.partitions where part_name = %s", (part,))
    dest = next(n for n in WORKERS if (n,) not in copies)
    ok(acc, "select shardman.move_part(%s, %s)", part, dest)
    assert built(acc, "%lower(name)%") == [True] * 12
    assert built(acc, "CREATE UNIQUE%(name, id)%") == [True] * 12
    with as_bob(acc, 2) as bob:
        bob.execute('drop index "By name"')
    assert built(acc, "%lower(name)%") == [False] * 12
    settled(acc)


def test_what_fails_leaves_no_index(acc: Cluster) -> None:
    with as_bob(acc, 2) as bob:
        bob.execute("update acc set name = 'same'")
        bob.execute("create function mine(text) returns text immutable language sql return $1")
    for text, said in (
        ("create unique index twice on app.acc (name)", "unique constraint on partitioned table"),
        ("create index a on app.acc (v); drop table app.acc", "not a CREATE INDEX"),
        ("create index on app.acc (v)", "not a CREATE INDEX with a name"),
        ("create index a on app.nix (v)", "not a sharded table"),
        ("create index mine on app.acc (app.mine(name))", "belongs to bob"),
        ("create index a on app.acc (v) where pg_sleep(0) is null", "IMMUTABLE"),
    ):
        with pytest.raises(psycopg.Error, match=said):
            value(acc, 2, CONCURRENTLY, text)
    done = bobs(acc, 2, CONCURRENTLY, "create index late on app.acc ((1 / (v - 30)))")
    assert done.status == "failed", done
    assert "division by zero" in (done.error or "")
    assert built(acc, "%mine%") == [False] * 12
    assert built(acc, "%/ (v - 30)%") == [False] * 12
    with as_bob(acc, 1) as bob:
        bob.execute("drop function mine")
        with pytest.raises(psycopg.Error) as refused:
            bob.execute("create index concurrently x on acc (v)")
        assert "create_index_concurrently('create index x on acc (v)')" in (
            refused.value.diag.message_hint or ""
        )
    dsn = make_conninfo(acc.dsn(1), user="eve", password="b")
    with psycopg.connect(dsn, autocommit=True) as eve, pytest.raises(psycopg.Error):
        eve.execute(CONCURRENTLY, ("create index x on app.acc (v)",))
    settled(acc)
