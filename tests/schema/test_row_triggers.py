"""Triggers FOR EACH ROW on a sharded table: taken over from the plain one, changed by plain DDL as an
ordinary role."""

from __future__ import annotations

import psycopg
import pytest

from schema.bob import NODES, ROWS, WORKERS, as_bob, move_in, ok, send, value
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

SCHEMA = """
create table log (id int primary key, t text);
create table acc (id int primary key, v int not null default 0, t text not null default '', n int);
insert into acc (id) select i from generate_series(1, 60) i;
create function touch() returns trigger language plpgsql as
    'begin new.t := new.t || ''*''; return new; end';
create function audit() returns trigger language plpgsql as $$
begin insert into log values (new.id, tg_argv[0] || ' ' || current_user); return null; end $$;
create trigger touch before update on acc
    for each row when (old.* is distinct from new.*) execute function touch();
create trigger audit after insert or update of v on acc for each row execute function audit('acc');
comment on trigger touch on acc is 'it''s ours';
alter table acc disable trigger audit;
"""
#: Made when all nodes know bob.
FUNCTIONS = (
    """create function counted() returns trigger language plpgsql as $$
       begin
           new.n := (select count(*) from acc where id <= 60);
           new.t := current_setting('TimeZone');
           return new;
       end $$""",
    """create function other_key() returns trigger language plpgsql as
       'begin new.id := new.id + 100000; return new; end'""",
)
#: On a node: which triggers data tables have, in what state, and whether the table is a primary.
THERE = """
select c.relname, g.tgname, g.tgenabled, obj_description(g.oid, 'pg_trigger'), c.relispartition
  from pg_trigger g join pg_class c on c.oid = g.tgrelid join pg_proc f on f.oid = g.tgfoid
 where c.relname ~ '^acc' and not g.tgisinternal and f.pronamespace <> 'shardman'::regnamespace
 order by 1, 2
"""
#: As `there` gives them.
TOUCH = ("touch", "O", "it's ours")
AUDIT = ("audit", "D", None)


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    commands = (
        "select shardman.create_hash_partitions(1, 'app.log', 'id', 2)",
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 3)",
        "select shardman.set_replevel('app.acc', 1)",
    )
    move_in(cluster, SCHEMA, commands, "acc")
    send(cluster, 1, *FUNCTIONS)
    return cluster


def there(cluster: Cluster) -> set[tuple[object, ...]]:
    """Names, states and comments of the table's triggers: the same on each of its primaries, and on nothing
    else."""
    found = [r for n in NODES for r in cluster.sql(n, THERE)]
    assert all(r[4] for r in found), found
    kinds = {r[1:4] for r in found}
    count = "select partitions_count from shardman.tables where relation = 'app.acc'"
    assert len(found) == cluster.value(0, count) * len(kinds)
    return kinds


def settled(cluster: Cluster) -> None:
    eventually("what was submitted has ended", lambda: not cluster.commands_left())
    assert check(cluster.lord_dsn, data=True, patience=30) == []


def written_once(cluster: Cluster) -> None:
    """An update of all rows through each node: each row's trigger acts once a time."""
    with cluster.connect(1) as conn:
        conn.execute("update app.acc set t = ''")
    seen = len(str(value(cluster, 1, "select max(t) from acc")))
    for n, node in enumerate(NODES, 1):
        send(cluster, node, f"update acc set v = {n + 1000}")
        once = "*" * (seen + n)
        assert value(cluster, node, "select min(t) || ' ' || max(t) from acc") == f"{once} {once}"


def test_a_row_meets_its_triggers_once_wherever_it_lies(acc: Cluster) -> None:
    assert there(acc) == {AUDIT, TOUCH}
    # Neither when it was copied to its owner, nor on a replica.
    assert value(acc, 1, "select max(t) from acc") == ""
    written_once(acc)
    part, primary, replica = acc.sql(
        0,
        "select part_name, owner, nxt from shardman.partitions"
        " where prv is null and relation = 'app.acc' limit 1",
    )[0]
    third = next(n for n in WORKERS if n not in (primary, replica))
    ok(acc, "select shardman.switch_primary(%s, %s)", part, replica)
    ok(acc, "select shardman.move_part(%s, %s)", part, third)
    ok(acc, "select shardman.set_partitions_count('app.acc', 6)")
    assert there(acc) == {AUDIT, TOUCH}
    written_once(acc)
    # What somebody changes on one node alone is put right.
    node, data = acc.sql(0, "select owner, part_name || '_data' from shardman.partitions limit 1")[
        0
    ]
    acc.sql(node, f"set shardman.ddl = 'here'; drop trigger if exists touch on {data}")
    acc.sql(node, "select shardman.reconcile()")
    assert there(acc) == {AUDIT, TOUCH}


def test_they_are_made_and_changed_on_any_node(acc: Cluster) -> None:
    send(acc, 3, "alter table acc enable trigger audit")
    for node in NODES:
        send(acc, node, f"insert into acc (id) values ({100 + node})")
        send(acc, node, f"update acc set v = v + 1 where id = {node + 1}")
    assert value(acc, 2, "select count(*) from log where t = 'acc bob'") == 8
    send(acc, 0, "delete from acc where id > 60")
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute(
            "create trigger counted before insert on acc for each row execute function counted()"
        )
        bob.execute("savepoint s")
        bob.execute("alter trigger touch on acc rename to touched")
        bob.execute("rollback to savepoint s")
        bob.execute(
            "alter table acc add column k int; drop trigger audit on acc;"
            " comment on trigger counted on acc is 'c'"
        )
    assert there(acc) == {("counted", "O", "c"), TOUCH}
    with as_bob(acc, 3, autocommit=False) as bob:
        bob.execute("drop trigger touch on acc")
        bob.rollback()
    # At once, and still so when the metadata have come.
    send(acc, 1, "alter trigger counted on acc rename to counts")
    assert there(acc) == {("counts", "O", "c"), TOUCH}
    settled(acc)
    for node in NODES:
        acc.sql(node, "select shardman.reconcile()")
        assert acc.sql(node, "select * from shardman.changed_constraints") == []
    assert there(acc) == {("counts", "O", "c"), TOUCH}


def test_it_finds_what_it_names_as_where_it_was_made(acc: Cluster) -> None:
    """It names a table without its schema, and sees all of that; its time zone is that of a node's sessions."""
    for node in NODES:
        rows = f"insert into acc (id) select {200 + 10 * node} + i from generate_series(0, 9) i"
        send(acc, node, rows)
    zone = acc.value(1, "select reset_val from pg_settings where name = 'TimeZone'")
    seen = "select array_agg(distinct t) || array_agg(distinct n::text) from acc where id >= 200"
    assert value(acc, 1, seen) == [zone, "60"]
    send(acc, 2, "delete from acc where id > 60", "drop trigger counts on acc")


def test_it_follows_the_columns_that_it_names(acc: Cluster) -> None:
    send(
        acc,
        1,
        "create or replace trigger touch before update of v on acc"
        " for each row when (new.v > 0) execute function touch()",
    )
    send(acc, 3, "alter table acc rename column v to w")
    settled(acc)
    moved, *_ = acc.sql(
        0, "select min(part_name) from shardman.partitions where relation = 'app.acc'"
    )
    copies = acc.sql(0, "select owner from shardman.partitions where part_name = %s", moved)
    free = next(n for n in WORKERS if (n,) not in copies)
    ok(acc, "select shardman.move_part(%s, %s)", *moved, free)
    assert there(acc) == {TOUCH}
    send(acc, 1, "alter table acc rename column w to v")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        send(acc, 2, "alter table acc drop column v")


@pytest.mark.parametrize(
    ("kind", "trigger", "said"),
    [
        ("", "t after insert on acc execute function touch()", "once for each statement"),
        (
            "constraint",
            "t after insert on acc deferrable for each row execute function touch()",
            "at the end of the transaction",
        ),
        (
            "",
            "t before insert on acc for each row when (new.t > now()::text) execute function touch()",
            "TimeZone",
        ),
        ("", "t before insert on acc for each row execute function nowhere()", "does not exist"),
        # Behind something else it would be done here alone, where the table itself has none.
        ("", "t before insert on acc for each row execute function touch(); select 1", "by itself"),
    ],
)
def test_what_no_sharded_table_can_have(acc: Cluster, kind: str, trigger: str, said: str) -> None:
    with pytest.raises(psycopg.Error, match=said):
        send(acc, 2, f"create {kind} trigger {trigger}")
    for mixed in ("drop trigger if exists touch on acc", "alter trigger touch on acc rename to t"):
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            send(acc, 2, f"select 1; {mixed}")
    assert there(acc) == {TOUCH}


def test_a_row_does_not_leave_its_partition(acc: Cluster) -> None:
    send(
        acc,
        1,
        "create trigger z before insert or update on acc"
        " for each row when (new.v = 77) execute function other_key()",
    )
    refused = 0
    for node in WORKERS:
        for key in range(3):
            for query in (
                f"insert into acc (id, v) values ({1000 * node + key}, 77)",
                f"update acc set v = 77 where id = {node * 3 + key}",
            ):
                try:
                    send(acc, node, query)
                except psycopg.errors.CheckViolation:
                    refused += 1
    assert refused > 6
    # No row lies where it does not belong.
    settled(acc)
    send(acc, 2, "drop trigger z on acc", f"delete from acc where id > {ROWS}")


def test_one_that_writes_a_shared_table_needs_the_rows_of_one_node(acc: Cluster) -> None:
    send(
        acc,
        1,
        "create table told (id int primary key)",
        "insert into told values (0)",
        "create function tells() returns trigger language plpgsql as"
        " 'begin update told set id = id + 1; return null; end'",
    )
    ok(acc, "select shardman.create_shared_table('app.told', 1)")
    send(acc, 1, "create trigger z after update on acc for each row execute function tells()")
    for node in NODES:
        with pytest.raises(psycopg.Error, match="in a circle") as said:
            send(acc, node, "update acc set t = ''")
        assert said.value.sqlstate == "SHM12"
        send(acc, node, "update acc set t = '' where id = 1")
    assert [value(acc, n, "select id from told") for n in WORKERS] == [4, 4, 4]
    send(acc, 2, "drop trigger z on acc")


def test_a_function_takes_its_triggers_along(acc: Cluster) -> None:
    send(
        acc,
        2,
        "create function gone() returns trigger language plpgsql as 'begin return new; end'",
        "create trigger gone before insert on acc for each row execute function gone()",
    )
    settled(acc)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        send(acc, 1, "drop function gone()")
    with as_bob(acc, 1, autocommit=False) as bob:
        bob.execute("alter function gone() rename to went")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="just got another"):
            bob.execute("alter table acc disable trigger gone")
        bob.rollback()
    send(acc, 3, "drop function gone() cascade")
    settled(acc)
    assert there(acc) == {TOUCH}


def test_they_go_with_the_table(acc: Cluster) -> None:
    send(acc, 3, "alter table acc rename to account")
    known = "select exists (select from shardman.tables where relation = 'app.account')"
    eventually("the name is known", lambda: acc.value(0, known))
    ok(acc, "select shardman.unshard_table('app.account', 2)")
    found = acc.sql(
        2,
        "select pg_get_triggerdef(oid), obj_description(oid, 'pg_trigger') from pg_trigger"
        " where tgrelid = 'app.account'::regclass and not tgisinternal",
    )
    touch = (
        "CREATE TRIGGER touch BEFORE UPDATE OF v ON app.account FOR EACH ROW WHEN ((new.v > 0))"
        " EXECUTE FUNCTION app.touch()"
    )
    assert found == [(touch, "it's ours")]
