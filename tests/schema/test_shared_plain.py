"""What applications' migrations do to tables besides columns and keys: triggers of shared tables, columns
with numbers of their own, names of sequences. And a table whose drop the lord's metadata did not hear of."""

from __future__ import annotations

import time

import psycopg
import pytest

from schema.bob import NODES, ROWS, WORKERS, as_bob, move_in, send, value
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

SCHEMA = """
create table tag (id serial primary key, t text, n int default 0);
insert into tag (t) select 't' || i from generate_series(1, 60) i;
delete from tag where id % 2 = 0;
create table log (id bigserial primary key, what text);
create table acc (id int primary key, v int, old serial, unique (id, v));
insert into acc select i, i from generate_series(1, 60) i;
create function touch() returns trigger language plpgsql as 'begin new.n := new.n + 1; return new; end';
"""
#: As django-pgtrigger sends it, in one query.
PGTRIGGER = """
create or replace function pgtrigger_log() returns trigger as $$
    begin insert into log (what) values (tg_op || old.t); return null; end;
$$ language plpgsql;
drop trigger if exists pgtrigger_log on "tag";
create trigger pgtrigger_log after update of t or delete on "tag" for each row when (old.t is not null)
    execute procedure pgtrigger_log();
comment on trigger pgtrigger_log on "tag" is 'a1b2';
"""
TRIGGERS = """
select coalesce(string_agg(concat_ws(' ', pg_get_triggerdef(oid), tgenabled,
                                     obj_description(oid, 'pg_trigger')), ', ' order by tgname), '')
  from pg_trigger
 where tgrelid = 'app.tag'::regclass and not tgisinternal and tgfoid::regproc::text !~ '_shared'
"""


@pytest.fixture(scope="module")
def app(cluster: Cluster) -> Cluster:
    """Two shared tables of bob's, and a sharded one with replicas."""
    commands = (
        "select shardman.create_shared_table('app.tag', 1)",
        "select shardman.create_shared_table('app.log', 1)",
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 3)",
        "select shardman.set_replevel('app.acc', 1)",
    )
    move_in(cluster, SCHEMA, commands, "acc")
    return cluster


def settled(cluster: Cluster) -> None:
    eventually("what was submitted has ended", lambda: not cluster.commands_left())
    failed = "select cmd_type, error from shardman.cmd_log where status = 'failed'"
    assert cluster.sql(0, failed) == []
    assert check(cluster.lord_dsn, data=True, patience=30) == []


def same(cluster: Cluster, query: str, nodes: tuple[int, ...] = WORKERS) -> object:
    """What all these nodes say alike."""
    found = [cluster.value(n, query) for n in nodes]
    assert len(set(map(str, found))) == 1, found
    return found[0]


def test_triggers_of_a_shared_table(app: Cluster) -> None:
    send(app, 3, PGTRIGGER)
    with as_bob(app, 2, autocommit=False) as bob:
        bob.execute(
            "create trigger touch before update on tag for each row execute function touch()"
        )
        bob.execute("update tag set t = 'new' where id = 1")
        bob.execute("savepoint s")
        bob.execute("drop trigger touch on tag")
        bob.execute("alter trigger pgtrigger_log on tag rename to x")
        bob.execute("update tag set t = 'newer' where id = 1")
        bob.execute("rollback to s")
        bob.commit()
    for node in WORKERS:
        send(app, node, f"update tag set t = 'of {node}' where id = 3")
    assert same(app, "select string_agg(what, ' ' order by id) from app.log")
    assert value(app, 1, "select count(*) from log") == 4
    assert (
        same(app, "select string_agg(n::text, ' ' order by id) from app.tag where id < 4") == "1 3"
    )
    assert "a1b2" in str(same(app, TRIGGERS))
    send(app, 1, "alter trigger pgtrigger_log on tag rename to logged")
    send(app, 2, "alter table tag disable trigger user")
    send(app, 3, "update tag set t = 'quiet' where id = 3", "alter table tag enable trigger touch")
    send(
        app,
        1,
        "create or replace trigger touch before insert on tag for each row execute function touch()",
    )
    send(app, 2, "insert into tag (t) values ('made')", "update tag set t = 'x' where t = 'made'")
    assert same(app, "select sum(n) from app.tag") == 5
    assert value(app, 3, "select count(*) from log") == 4
    for refused in (
        'drop trigger "A_shardman_lock" on tag',
        "alter trigger shardman_insert on tag rename to mine",
        'create or replace trigger "A_shardman_key" after update on tag for each row execute function touch()',
    ):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="is the cluster's"):
            send(app, 2, refused)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="acts on what is replicated too"):
        send(app, 2, "alter table tag enable always trigger touch")
    settled(app)
    triggers = """select t ->> 'name'
                    from shardman.shared_tables s, jsonb_array_elements(s.definition -> 'triggers') t
                   where s.relation = 'app.tag'"""
    assert app.sql(0, triggers) == [("logged",), ("touch",)]
    send(
        app,
        3,
        "drop trigger touch on tag; drop trigger logged on tag; drop function pgtrigger_log()",
    )
    assert same(app, TRIGGERS) == ""
    settled(app)


def test_new_columns_have_numbers_of_their_own(app: Cluster) -> None:
    with as_bob(app, 2, autocommit=False) as bob:
        bob.execute("alter table tag add column k bigserial unique")
        bob.execute("alter table acc add column k bigserial")
        bob.execute("savepoint s")
        bob.execute("alter table acc add column x serial; alter table tag add column x serial")
        bob.execute("rollback to s")
        bob.execute("alter table acc add column i int generated always as identity")
        bob.execute("alter table tag add column i int generated always as identity")
        bob.execute("insert into acc (id, v) values (101, 1)")
        bob.execute("insert into tag (t) values ('first')")
        bob.commit()
    for node in WORKERS:
        send(
            app,
            node,
            f"insert into acc (id, v) select 200 + {node} * 10 + i, i from generate_series(1, 5) i",
        )
        send(app, node, f"insert into tag (t) values ('at {node}')")
    with pytest.raises(psycopg.errors.GeneratedAlways):
        send(app, 3, "insert into tag (i) values (1)")
    different = "select (count(*), count(distinct k), count(distinct i))::text from app.{}"
    assert same(app, different.format("acc"), NODES) == f"({ROWS + 16},{ROWS + 16},{ROWS + 16})"
    rows = value(app, 1, "select count(*) from tag")
    assert same(app, different.format("tag")) == f"({rows},{rows},{rows})"
    assert same(app, "select md5(string_agg(t::text, ' ' order by id)) from app.tag t")
    settled(app)
    # At once, as a migration is taken back, on a table with replicas; the numbers of an older one too.
    send(app, 3, "alter table acc drop column k, drop column old", "alter table tag drop column k")
    settled(app)
    send(app, 1, "insert into acc (id, v) values (501, 1)", "insert into tag (t) values ('x')")
    known = """select jsonb_path_query_array(definition, '$.sequences[*].name')::text
                 from shardman.{} where relation = 'app.{}'"""
    assert app.value(0, known.format("tables", "acc")) == '["app.acc_i_seq"]'
    assert (
        app.value(0, known.format("shared_tables", "tag")) == '["app.tag_id_seq", "app.tag_i_seq"]'
    )


def test_another_primary_key(app: Cluster) -> None:
    with as_bob(app, 2) as bob:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="has no primary key"):
            bob.execute("alter table log drop constraint log_pkey")
        bob.execute("insert into log (what) values ('a'), ('b')")
        bob.execute("alter table log add column u uuid not null default gen_random_uuid()")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="values of its own"):
            bob.execute("alter table log drop constraint log_pkey, add w bigserial primary key")
        with bob.transaction():
            bob.execute("alter table log drop constraint log_pkey")
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState), bob.transaction():
                bob.execute("update log set what = 'c'")
            bob.execute("insert into log (what) values ('c')")
            bob.execute("alter table log add primary key (u)")
    send(app, 3, "update log set u = gen_random_uuid() where what = 'a'")
    exchange = "alter table log drop constraint log_pkey, add primary key (id)"
    send(app, 3, "delete from log where what <> 'a'", exchange)
    send(app, 1, "update log set id = id + 1", "alter table log drop column u")
    rows = {n: app.sql(n, "select id, what from app.log") for n in WORKERS}
    assert rows[1] == rows[2] == rows[3] and len(rows[1]) == 1
    eventually("what was submitted has ended", lambda: not app.commands_left())
    assert check(app.lord_dsn, data=True, patience=30) == []


def test_statistics_and_checks_that_are_not_valid(app: Cluster) -> None:
    send(
        app,
        3,
        "alter table tag add constraint named check (t <> 't5') not valid",
        "create statistics of_both on t, n from tag",
        "alter statistics of_both set statistics 10",
        "comment on statistics of_both is 'both'",
    )
    with as_bob(app, 1) as bob:
        with pytest.raises(psycopg.errors.CheckViolation):
            bob.execute("alter table tag validate constraint named")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="on this node only"):
            bob.execute("do $$ begin perform 1; drop statistics app.of_both; end $$")
    # A copy that is made anew has the rows that break it.
    app.sql(
        2,
        "set shardman.ddl = 'here'; drop statistics app.of_both; alter table app.tag drop constraint named",
    )
    eventually("what was submitted has ended", lambda: not app.commands_left())
    assert app.cmd("select shardman.create_shared_table('app.tag', 1)").status in (
        "success",
        "done",
    )
    assert check(app.lord_dsn, data=True, patience=30) == []
    found = (
        "select stxname, (select count(*) from app.tag where t = 't5') from pg_statistic_ext"
        " where stxrelid = 'app.tag'::regclass"
    )
    assert {n: app.sql(n, found) for n in WORKERS} == {n: [("of_both", 1)] for n in WORKERS}
    send(
        app,
        2,
        "drop statistics of_both",
        "update tag set t = 'five' where t = 't5'",
        "alter table tag validate constraint named",
    )
    send(app, 1, "alter table tag drop constraint named")
    assert {app.value(n, "select count(*) from pg_statistic_ext") for n in WORKERS} == {0}


#: What there is called so, and of which table.
NAMED = """
select coalesce(string_agg(concat_ws(' ', name, rel::regclass), ', ' order by name), '')
  from (select relname, indrelid from pg_index join pg_class c on c.oid = indexrelid
        union all select stxname, stxrelid from pg_statistic_ext) as x (name, rel)
 where name in ('plain_ix', 'plain_st', 'tag_ix', 'of_acc', 'of_tag')
"""


def test_whether_there_is_one_is_said_by_the_node_that_was_asked(app: Cluster) -> None:
    """IF NOT EXISTS, of a name that another node has given to something else: each decided for itself."""
    send(app, 1, "create table mine (a int, b int)", "create index plain_ix on mine (a)")
    send(app, 1, "create statistics plain_st on a, b from mine", "create index tag_ix on tag (n)")
    for table in ("acc", "tag"):
        column = "v" if table == "acc" else "n"
        index = f"create index if not exists plain_ix on {table} ({column})"
        statistics = f"create statistics if not exists plain_st on id, {column} from {table}"
        for statement in (index, statistics):
            with pytest.raises(psycopg.Error, match=r"node 1: .*already exists"):
                send(app, 2, statement)
            # There it is left out, for all.
            send(app, 1, statement)
    assert app.value(1, NAMED) == "plain_ix app.mine, plain_st app.mine, tag_ix app.tag"
    # The lord has no shared tables.
    send(app, 3, "create index if not exists tag_ix on acc (v)")
    assert app.value(0, NAMED) == ""
    for _ in range(2):
        send(app, 2, 'create index if not exists "of_acc" on acc (v)')
        send(app, 3, "create statistics if not exists app.of_tag on id, n from tag")
    assert same(app, NAMED, (2, 3)) == "of_acc app.acc, of_tag app.tag, tag_ix app.tag"
    send(
        app,
        1,
        "drop table mine",
        "drop index of_acc",
        "drop index tag_ix",
        "drop statistics of_tag",
    )
    assert same(app, NAMED, NODES) == ""
    assert check(app.lord_dsn, patience=30) == []


def test_two_roles_change_one_table_in_one_transaction(app: Cluster) -> None:
    """Each has connections of its own to other nodes, so the second waited for the first, for half a minute."""
    for table in ("acc", "tag"):
        with app.connect(1, autocommit=False) as both:
            both.execute("set local role bob")
            both.execute(f"alter table app.{table} add column by_two int".encode())
            both.execute("set local role none")
            both.execute("savepoint first")
            with pytest.raises(psycopg.errors.ObjectInUse, match=r"changed in this .* as bob"):
                both.execute(f"alter table app.{table} drop column by_two".encode())
            both.execute("rollback to first")
            both.execute("set local role bob")
            both.execute(f"alter table app.{table} drop column by_two".encode())


def test_what_would_be_dropped_with_its_schema_is_named(app: Cluster) -> None:
    app.sql(1, "create schema away; create table away.s (id int primary key)")
    shared = app.cmd("select shardman.create_shared_table('away.s', 1)")
    assert shared.status == "success", shared
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="on this node only") as refused:
        app.sql(2, "drop schema away cascade")
    assert "DROP TABLE away.s" in str(refused.value.diag.message_hint)
    app.sql(2, "drop table away.s")
    app.sql(3, "drop schema away cascade")
    said = "select count(*) from pg_namespace where nspname = 'away'"
    assert {app.value(n, said) for n in NODES} == {0}
    with app.connect(1) as admin:
        notices: list[str | None] = []
        admin.add_notice_handler(lambda d: notices.append(d.message_primary))
        admin.execute("create role nobodys; drop owned by nobodys; drop role nobodys")
    assert "DROP OWNED concerns this node only, and so does REASSIGN OWNED" in notices


def test_with_row_security_off(app: Cluster) -> None:
    """As what pg_dump writes has it: its owner could neither write to a shared table nor change it."""
    for node in WORKERS:
        send(
            app,
            node,
            "set local row_security = off",
            "insert into tag (t) values ('restored')",
            "alter table tag add column restored int",
            "alter table tag drop column restored",
            "delete from tag where t = 'restored'",
        )


def test_sequences_are_called_otherwise(app: Cluster) -> None:
    """As Rails' rename_table has it, and back."""
    for node, former, wanted in ((2, "tag", "label"), (3, "label", "tag")):
        with as_bob(app, node, autocommit=False) as bob:
            bob.execute(f'alter table "{former}" rename to "{wanted}"'.encode())
            bob.execute(f'alter table "{former}_id_seq" rename to "{wanted}_id_seq"'.encode())
            bob.execute(f'alter index "{former}_pkey" rename to "{wanted}_pkey"'.encode())
            bob.commit()
        for other in WORKERS:
            send(app, other, f"insert into {wanted} (t) values ('after')")
        settled(app)
    send(app, 0, "alter sequence if exists acc_i_seq rename to acc_numbers")
    send(app, 0, "alter sequence acc_numbers increment by 3")
    send(app, 2, "insert into acc (id, v) select i, 1 from generate_series(600, 610) i")
    settled(app)
    assert same(app, "select count(distinct i) = count(*) from app.acc", NODES) is True
    increments = "select increment_by from pg_sequences where sequencename = 'acc_numbers'"
    assert same(app, increments, NODES) == 3
    assert (
        same(app, "select count(*) from pg_sequences where sequencename ~ 'label|acc_i'", NODES)
        == 0
    )
    for refused in ("alter sequence tag_id_seq owned by none", "drop sequence tag_id_seq cascade"):
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            send(app, 1, refused)


def test_a_drop_of_which_the_lord_has_not_heard_is_repeated(app: Cluster) -> None:
    app.stop_lord()
    send(app, 2, "drop table log")
    drop = "select max(id) from shardman.cmd_log where cmd_type = 'drop_table'"
    assert app.value(0, f"select shardman.cancel_cmd(({drop}))")
    send(app, 3, "create table log (id int primary key)")
    app.start_lord()
    eventually(
        "the new one is shared",
        lambda: app.value(1, "select to_regclass('app.log')"),
        seconds=60,
    )
    eventually("what was submitted has ended", lambda: not app.commands_left())
    send(app, 1, "insert into log values (1)")
    settled(app)
    assert same(app, "select sum(id) from app.log") == 1


def test_one_node_whose_metadata_are_damaged_drops_nothing(app: Cluster) -> None:
    app.stop_lord()
    cmd = app.submit("select shardman.drop_table('app.tag')")
    assert app.value(0, "select shardman.cancel_cmd(%s)", (cmd,))
    gone = "delete from shardman.shared_copies where relation = 'app.tag' returning relation, node"
    lost = app.sql(2, gone)
    assert len(lost) == len(WORKERS)
    app.start_lord()
    # Twice as long as it takes until what was dropped is looked for.
    time.sleep(12)
    submitted = "select count(*) from shardman.cmd_log where cmd_type = 'drop_table' and id > %s"
    assert app.value(0, submitted, (cmd,)) == 0
    for row in lost:
        app.sql(2, "insert into shardman.shared_copies (relation, node) values (%s, %s)", row)
    assert same(app, "select count(*) from app.tag") > 0
