"""What an ordinary role that owns a sharded table tries, and what has become of it: nothing, on any node."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg import sql

from shardman.nodes.invariants import check
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

NODES = (0, 1, 2, 3)
ROWS = 60
#: Bob owns the table, carol may use it; mallory has nothing.
ROLES = ("bob", "carol", "mallory")
SETUP = """
create schema app authorization bob;
grant usage on schema app to public;
"""
TABLE = """
set role bob;
create table app.acc (id int primary key, note text default 'n', who text default current_user);
insert into app.acc select i, 'n' || i from generate_series(1, 60) i;
grant select, insert, update, delete on app.acc to carol;
reset role;
"""
SUPERUSERS = "select array_agg(rolname::text order by 1) from pg_roles where rolsuper"
#: What a function of bob's tries, whoever runs it; it writes down who did, and as what.
CAPTURE = """
create function app.capture() returns bool language plpgsql volatile as $$
begin
    insert into app.loot select current_user, session_user, rolsuper from pg_roles where rolname = current_user;
    begin
        execute 'alter role mallory superuser';
    exception when others then null;
    end;
    begin
        reset role;
        execute 'alter role mallory superuser';
    exception when others then null;
    end;
    return true;
end $$;
create table app.loot (who name, login name, super bool);
grant insert on app.loot to public;
alter table app.loot owner to bob; alter function app.capture() owner to bob;
"""
MAPPINGS = """
select count(*) from pg_user_mappings m join pg_roles r on r.oid = m.umuser, pg_options_to_table(m.umoptions) o
 where m.srvname like 'shardman\\_%' and not r.rolsuper
   and o.option_name = 'user' and o.option_value <> 'shardman_' || r.rolname
"""


def everywhere(cluster: Cluster, script: str) -> None:
    """Done on each node alone."""
    for node in NODES:
        with cluster.connect(node, options="-c shardman.ddl=here") as conn:
            conn.execute(script.encode())


def as_role(cluster: Cluster, node: int, role: str) -> SyncConnection:
    return cluster.connect(node, user=role, password=f"{role}'s own")


def ask(cluster: Cluster, node: int, role: str, query: str) -> list[tuple[Any, ...]]:
    with as_role(cluster, node, role) as conn:
        done = conn.execute(query.encode())
        return done.fetchall() if done.description else []


def count(cluster: Cluster, node: int, role: str) -> int | str:
    try:
        return int(ask(cluster, node, role, "select count(*) from app.acc")[0][0])
    except psycopg.Error as error:
        return str(error)


def reaches(cluster: Cluster, role: str, nodes: tuple[int, ...] = NODES) -> None:
    for node in nodes:
        eventually(
            f"{role} reads all on node {node}",
            lambda node=node: count(cluster, node, role),
            until=lambda n: n == ROWS,
            seconds=30,
        )


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Cluster:
    for role in ROLES:
        everywhere(cluster, f"create role {role} login password '{role}''s own'")
    everywhere(cluster, SETUP)
    cluster.sql(1, TABLE.encode())
    for command in (
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 6)",
        "select shardman.set_replevel('app.acc', 1)",
    ):
        done = cluster.cmd(command.encode())
        assert done.status in ("success", "done"), done
    reaches(cluster, "bob")
    reaches(cluster, "carol")
    return cluster


def unharmed(cluster: Cluster) -> None:
    for node in NODES:
        assert cluster.value(node, SUPERUSERS) == cluster.value(0, SUPERUSERS) != ["mallory"]
        assert not cluster.value(node, "select rolsuper from pg_roles where rolname = 'mallory'")
        assert cluster.value(node, MAPPINGS.encode()) == 0


def route(cluster: Cluster, node: int) -> str:
    """A route that there is on a node."""
    return str(
        cluster.value(
            node,
            "select format('%I.%I', n.nspname, c.relname)"
            " from pg_foreign_table f join pg_class c on c.oid = f.ftrelid"
            " join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'app' order by 1 limit 1",
        )
    )


def repoint(conn: SyncConnection, target: str, schema: str, table: str) -> None:
    conn.execute("set shardman.ddl = 'here'")  # which everybody may set
    conn.execute(
        sql.SQL("alter foreign table {} options (set schema_name {}, set table_name {})").format(
            sql.SQL(target), sql.Literal(schema), sql.Literal(table)
        )
    )


def part_of(target: str) -> str:
    return target.removeprefix("app.").removesuffix("_fdw")


def home(cluster: Cluster, part: str) -> int:
    return int(
        cluster.value(
            0, "select owner from shardman.partitions where part_name = %s and prv is null", (part,)
        )
    )


def test_a_statement_arrives_as_who_sent_it(shop: Cluster) -> None:
    for role in ("bob", "carol"):
        for node in NODES:
            ask(shop, node, role, f"update app.acc set note = note where id between {node} and 50")
    other = next(k for k in range(6) if home(shop, f"app.acc_{k}") != 1)
    arrived = "select count(*) from pg_stat_activity where usename = 'shardman_carol'"
    with as_role(shop, 1, "carol") as conn:
        conn.execute("begin")
        conn.execute("select count(*) from app.acc")
        assert shop.value(home(shop, f"app.acc_{other}"), arrived) == 1
    unharmed(shop)


@pytest.mark.parametrize(
    ("schema", "table", "column"),
    [
        ("shardman", "node_secrets", "password"),
        ("shardman", "road_secret", "secret"),
        ("shardman", "local", "cluster"),
        ("pg_catalog", "pg_authid", "rolpassword"),
    ],
)
def test_a_route_that_leads_elsewhere(shop: Cluster, schema: str, table: str, column: str) -> None:
    target = route(shop, 1)
    name = sql.SQL(target)
    with as_role(shop, 1, "bob") as conn:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="on this node only"):
            conn.execute(
                sql.SQL("alter foreign table {} options (add fetch_size '7')").format(name)
            )
        conn.execute("set shardman.ddl = 'here'")
        conn.execute(
            sql.SQL("alter foreign table {} alter note options (add column_name {})").format(
                name, sql.Literal(column)
            )
        )
        repoint(conn, target, schema, table)
        for attempt in (
            "select note from {}",
            "update {} set note = 'x'",
            "delete from {}",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
                conn.execute(sql.SQL(attempt).format(name))
        repoint(conn, target, "app", part_of(target))
        conn.execute(
            sql.SQL("alter foreign table {} alter note options (drop column_name)").format(name)
        )
    unharmed(shop)
    reaches(shop, "bob")


def test_ways_that_are_not_open(shop: Cluster) -> None:
    server = "shardman_node_2"
    for role in ("bob", "carol", "mallory"):
        with as_role(shop, 1, role) as conn:
            for attempt in (
                f"create user mapping for {role} server {server} options (user 'postgres')",
                f"alter user mapping for {role} server {server} options (set user 'postgres')",
                f"create foreign table app.mine_{role} (a int) server {server}",
                f"alter server {server} options (set host '/tmp')",
                "select * from shardman.node_secrets",
                "select * from shardman.road_secret",
                "select shardman.road_password('shardman_carol')",
                "select shardman.move_part('app.acc_0', 2)",
                "set role shardman_bob",
                "set role shardman_carol",
                "set session authorization shardman_bob",
                "alter role shardman_bob password 'x'",
                "grant pg_read_all_data to shardman_bob",
                "create event trigger e on ddl_command_start execute function app.capture()",
            ):
                with pytest.raises(psycopg.Error):
                    conn.execute(attempt.encode())
            seen = "select count(*) from pg_user_mappings where umoptions is not null"
            assert conn.execute(seen.encode()).fetchone() == (0,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(shop, 1, "mallory", "select * from app.acc_0")


def test_a_replica_is_not_the_owner_s(shop: Cluster) -> None:
    """Who could change one could stop the channel that feeds it, with the replicas of others."""
    replicas = shop.sql(
        0, "select owner, part_name || '_data' from shardman.partitions where prv is not null"
    )
    assert replicas
    for node, data in replicas[:3]:
        with as_role(shop, int(node), "bob") as conn:
            for attempt in (
                "drop trigger shardman_read_only on {}",
                "alter table {} disable trigger all",
                "alter table {} add check (id < 0) not valid",
                "alter table {} add extra int",
                "insert into {} values (0)",
                "truncate {}",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(sql.SQL(attempt).format(sql.SQL(data)))
    owners = (
        "select distinct relowner::regrole::text from pg_class where oid = any (%s::regclass[])"
    )
    used = [
        f"{p}_data"
        for (p,) in shop.sql(
            0, "select part_name from shardman.partitions where prv is null and owner = 1"
        )
    ]
    assert shop.sql(1, owners, (used,)) == [("bob",)]


@pytest.fixture(scope="module")
def trapped(shop: Cluster) -> Cluster:
    """Everything of bob's that PostgreSQL runs for him runs app.capture."""
    everywhere(shop, CAPTURE)
    for node in (1, 2, 3):
        with as_role(shop, node, "bob") as conn:
            conn.execute("set shardman.ddl = 'here'")
            conn.execute(
                "create function app.on_row() returns trigger language plpgsql as"
                " $$ begin perform app.capture(); return new; end $$"
            )
            for (data,) in shop.sql(
                node,
                "select c.oid::regclass::text from pg_class c join pg_inherits i on i.inhrelid = c.oid"
                " where c.relkind = 'r' and c.relname like 'acc\\_%\\_data'",
            ):
                conn.execute(
                    sql.SQL("create trigger t before insert or update on {}").format(sql.SQL(data))
                    + sql.SQL(" for each row execute function app.on_row()")
                )
    return shop


def loot(cluster: Cluster, nodes: tuple[int, ...] = (1, 2, 3)) -> set[tuple[str, bool]]:
    """Who has run what of bob's since the last time, and whether as a superuser."""
    found = set()
    for node in nodes:
        found |= set(cluster.sql(node, "select distinct who::text, super from app.loot"))
        cluster.sql(node, "truncate app.loot")
    return found


def test_triggers_run_as_who_sent_the_statement(trapped: Cluster) -> None:
    for node in NODES:
        ask(trapped, node, "carol", "update app.acc set note = 'by carol'")
    assert loot(trapped) == {("carol", False)}
    for node in NODES:
        rows = f"select {node + 1}000 + i from generate_series(1, 20) i"
        ask(trapped, node, "bob", f"insert into app.acc (id) {rows}")
    assert loot(trapped) == {("bob", False)}
    assert ask(trapped, 2, "carol", "select distinct who from app.acc where id > 60") == [("bob",)]
    ask(trapped, 1, "bob", "delete from app.acc where id > 60")
    unharmed(trapped)


def test_the_cluster_does_not_run_what_the_owner_may_change(trapped: Cluster) -> None:
    """SET ROLE would not hold it: app.capture resets it."""
    here = home(trapped, "app.acc_1")
    (replica,) = trapped.sql(
        0,
        "select owner from shardman.partitions where part_name = 'app.acc_1' and prv is not null",
    )[0]
    # Where the statement arrives, on every node, before anything else is done with it.
    for node in (here, replica):
        with (
            as_role(trapped, node, "bob") as bob,
            pytest.raises(psycopg.Error, match="no superuser"),
        ):
            bob.execute("alter table app.acc add constraint evil check (app.capture()) not valid")
    assert loot(trapped) == set()
    always = "set shardman.ddl = 'here'; alter table app.acc_1_data enable {} trigger t"
    # What the table has not is taken away when it is seen, perhaps already.
    with suppress(psycopg.errors.UndefinedObject):
        ask(trapped, here, "bob", always.format("always"))
    loot(trapped)
    # Or when its data table leaves its partition.
    done = trapped.cmd("select shardman.switch_primary('app.acc_1', %s)", (replica,))
    if done.status == "failed":
        assert done.code == "table_unsuitable", done
        assert "belongs to bob, who is no superuser" in (done.error or "")
        ask(trapped, here, "bob", always.format(""))
    else:
        assert done.status == "success", done
        left = "select tgname from pg_trigger where tgrelid = 'app.acc_1_data'::regclass and tgname = 't'"
        assert [trapped.sql(n, left) for n in (here, replica)] == [[], []]
    assert loot(trapped) == set()
    unharmed(trapped)


#: A foreign key of bob's own to his data table, compared by a cast of his.
OWN_KEY = """
set shardman.ddl = 'here';
create type app.odd as (v int);
create function app.odd_id(app.odd) returns int language plpgsql as $$
begin
    perform app.capture();
    return case when (select rolsuper from pg_roles where rolname = current_user) then -1 else ($1).v end;
end $$;
create cast (app.odd as int) with function app.odd_id(app.odd) as implicit;
create table app.own (x app.odd references app.acc_1_data (id) on delete cascade);
insert into app.own select row(id)::app.odd from app.acc_1_data;
"""


def test_who_asks_whether_a_row_is_referred_to_runs_nothing_of_its_owners(trapped: Cluster) -> None:
    """Before a row goes to another partition (56_references_leaving.sql)."""
    here = home(trapped, "app.acc_1")
    ask(trapped, here, "bob", OWN_KEY)
    trapped.sql(here, "select shardman.keep_rows(array['app.acc_1_data'::regclass])")
    guards = "select tgname from pg_trigger where tgname = '~shardman_leaving'"
    assert trapped.sql(here, guards) != []
    was = trapped.value(here, "select min(id) from app.acc_1")
    will_be = next(
        key
        for key in range(100000, 101000)
        for node, part, _ in trapped.sql(
            here, "select * from shardman.partition_of('app.acc', %s::text)", (key,)
        )
        if node == here and part != "app.acc_1"
    )
    with as_role(trapped, here, "bob") as bob:
        bob.execute("update app.acc set id = %s where id = %s", (will_be, was))
        bob.execute("update app.acc set id = %s where id = %s", (was, will_be))
    trapped.sql(here, "set shardman.ddl = 'here'; drop table app.own; drop type app.odd cascade")
    assert loot(trapped) <= {("bob", False)}
    unharmed(trapped)


#: Another one, of his data table, that nobody has validated.
NOT_VALIDATED = """
set shardman.ddl = 'here';
create function app.odd_number(app.odd) returns int language plpgsql as
 $$ begin perform app.capture(); return ($1).v; end $$;
create cast (app.odd as int) with function app.odd_number(app.odd) as implicit;
create table app.aim (x int primary key);
insert into app.aim select id from app.acc_1_data;
alter table app.acc_1_data add constraint aimed foreign key (c) references app.aim (x) not valid;
"""


def test_who_validates_foreign_keys_runs_nothing_of_the_owners(trapped: Cluster) -> None:
    here = home(trapped, "app.acc_1")
    ask(trapped, here, "bob", "create type app.odd as (v int)")
    ask(trapped, here, "bob", "alter table app.acc add column c app.odd")
    ask(trapped, here, "bob", "update app.acc_1 set c = row(id)::app.odd")
    ask(trapped, here, "bob", NOT_VALIDATED)
    refers = "select convalidated from pg_constraint where conname = 'aimed'"
    assert trapped.sql(here, refers) == [(False,)]
    trapped.sql(here, "select shardman.validate_a_reference()")
    for asks in ("validate_reference", "breaking_rows"):
        with pytest.raises(psycopg.Error, match="compares by a cast") as said:
            trapped.sql(here, f"select shardman.{asks}('app.acc_1', 'aimed')")
        assert said.value.sqlstate == "SHM09"
    trapped.sql(
        here,
        "set shardman.ddl = 'here'; alter table app.acc_1_data drop constraint if exists aimed;"
        " drop table app.aim; drop cast (app.odd as int)",
    )
    ask(trapped, here, "bob", "alter table app.acc drop column c")
    everywhere(trapped, "drop type if exists app.odd cascade")
    assert loot(trapped) <= {("bob", False)}
    unharmed(trapped)


#: Of a range type the function that tells how far two values are apart, for GiST indexes and for ANALYZE.
APART = """
create function app.apart(float8, float8) returns float8 immutable language plpgsql as
 $$ begin perform app.capture(); return $1 - $2; end $$;
create type app.span as range (subtype = float8, subtype_diff = app.apart);
create domain app.small as int check (app.apart(value, 1) < 1e9);
"""


@pytest.mark.parametrize(
    "change",
    [
        "alter table app.acc add column s app.span",
        "create index on app.acc using gist ((app.span(id, id + 1)))",
        "create index on app.acc ((id::app.small))",
        "alter table app.acc add check (id::app.small > -1)",
        "create statistics app.st on (app.apart(id, 1)), id from app.acc",
    ],
)
def test_what_indexes_ranges_and_statistics_call(trapped: Cluster, change: str) -> None:
    """On replicas, which are the cluster's own: they are written to, and analyzed."""
    for node in NODES:
        with as_role(trapped, node, "bob") as bob:
            bob.execute("set shardman.ddl = 'here'")
            bob.execute(APART.encode())
    try:
        with pytest.raises(psycopg.Error, match=r"the cluster does not (run|read)") as said:
            ask(trapped, 2, "bob", change)
        assert said.value.sqlstate == "SHM09"
    finally:
        everywhere(
            trapped, "drop function app.apart cascade; drop type if exists app.small, app.span"
        )
    assert loot(trapped) <= {("bob", False)}
    unharmed(trapped)


def test_rows_are_read_beside_checks_that_the_cluster_does_not_run(trapped: Cluster) -> None:
    """A planner that excludes by constraints computes what is constant in them."""
    here = home(trapped, "app.acc_1")
    with as_role(trapped, here, "bob") as bob:
        bob.execute(
            "set shardman.ddl = 'here'; create function app.least(int) returns int immutable"
            " language plpgsql as $$ begin perform app.capture(); return $1; end $$;"
            " alter table app.acc_1_data add constraint own check (id > app.least(-1000))"
        )
    loot(trapped)
    read = "select shardman.misplaced_rows('app.acc_1'), rows > 0 from shardman.content_hash('app.acc_1_data')"
    try:
        with trapped.connect(here, options="-c constraint_exclusion=on") as conn:
            conn.execute("select from app.acc_1_data where id > 5")
            assert loot(trapped) == {("postgres", True)}
            conn.execute("alter role mallory nosuperuser")
            assert conn.execute(read.encode()).fetchall() == [(0, True)]
        assert loot(trapped) == set()
    finally:
        ask(trapped, here, "bob", "set shardman.ddl = 'here'; drop function app.least cascade")
    unharmed(trapped)


def test_values_that_a_node_lacks_are_written_out_and_not_cast(trapped: Cluster) -> None:
    """Who repeats a change on a node that was away reads them in a session that could be more than bob."""
    everywhere(
        trapped,
        "set role bob; create type app.mood as enum ('a', 'b');"
        " create function app.said(app.mood) returns text language plpgsql as"
        " $$ begin perform app.capture(); return 'b'; end $$;"
        " create function app.heard(text) returns app.mood language plpgsql as"
        " $$ begin perform app.capture(); return 'b'; end $$;"
        " create cast (app.mood as text) with function app.said(app.mood) as assignment;"
        " create cast (text as app.mood) with function app.heard(text) as assignment",
    )
    ask(trapped, 1, "bob", "alter table app.acc add column mood app.mood default 'a'")
    everywhere(trapped, "delete from app.loot")
    here = home(trapped, "app.acc_1")
    assert trapped.value(here, "select shardman.missing_values('app.acc')") == {"mood": "'a'"}
    assert loot(trapped) == set()
    ask(trapped, 1, "bob", "alter table app.acc drop column mood")
    everywhere(trapped, "drop type app.mood cascade")
    unharmed(trapped)


def test_a_view_in_the_place_of_a_table(trapped: Cluster) -> None:
    """Its functions would run as who reads it: whoever compares copies, say."""
    ask(trapped, 1, "bob", "create table app.near (id int primary key)")
    shared = "select shardman.create_shared_table('app.near', 1)"
    assert trapped.cmd(shared.encode()).status == "success"
    view = "create view app.near as select 1 as id where app.capture()"
    ask(trapped, 2, "bob", f"set shardman.ddl = 'here'; drop table app.near; {view}")
    for query in (
        "select shardman.content_hash('app.near')",
        "select * from shardman.content_buckets('app.near', 16)",
        "select * from shardman.shared_rows('app.near', 16, array[1], 5)",
        "select shardman.take_shared_rows('app.near', array['(1)'])",
        "select shardman.check_filenode('app.near', 1)",
        "select shardman.plain_columns('app.near', 't')",
    ):
        with pytest.raises(psycopg.errors.WrongObjectType, match="no table on this node"):
            trapped.sql(2, query.encode())
    found = check(trapped.lord_dsn, data=True, patience=0)
    assert any("app.near" in f.subject for f in found), found
    assert loot(trapped) == set()
    ask(trapped, 2, "bob", "set shardman.ddl = 'here'; drop view app.near")
    assert trapped.cmd(shared.encode()).status == "success"
    ask(trapped, 1, "bob", "drop table app.near")
    unharmed(trapped)


#: Types of bob's that PostgreSQL asks for more than their values.
TYPES = """
set shardman.ddl = 'here';
create domain app.checked as text check (app.capture() or value = '');
create function app.far(int, int) returns float8 language plpgsql immutable as
 $$ begin perform app.capture(); return $1 - $2; end $$;
create type app.span as range (subtype = int, subtype_diff = app.far);
create type app.mood as enum ('good');
create function app.always() returns bool language plpgsql immutable as $$ begin return app.capture(); end $$;
create table app.made (id int primary key, t text, s app.span, m app.mood, j jsonb);
"""
#: Checks, and then what else he may make; what of it the cluster must not run.
TOLD = {
    "ts_rewrite('a'::tsquery, t) is not null": "ts_rewrite",
    "pg_read_file(t) is not null": "pg_read_file",
    "table_to_xml('app.acc', true, true, t) is not null": "table_to_xml",
    "lo_export(id, t) > 0": "lo_export",
    "t::app.checked <> ''": "domain app.checked",
    "record_in(t::cstring, id, 1) is not null": "record_in",
    "to_jsonb(m) is not null": "app.mood to json",
}
MADE = {
    "create statistics app.c on (app.always() and t = ''), id from app.made": "statistics c",
    "create index c on app.made (id) where app.always()": "app.always",
    "create rule c as on delete to app.made do also select app.capture();"
    " alter table app.made enable always rule c": "rule c",
    "create trigger c before update on app.made for each row when (app.always())"
    " execute function suppress_redundant_updates_trigger();"
    " alter table app.made enable always trigger c": "trigger c",
    # By GiST, and by whoever analyzes the table.
    "select": "app.far",
}
HARMLESS = (
    "random() >= 0 and clock_timestamp() > '2000-01-01' and gen_random_uuid() is not null and t ~ 'a'"
    " and to_char(now(), 'YYYY') <> t and id between 1 and 3 and m = 'good'"
)


def test_the_cluster_knows_what_it_must_not_run(trapped: Cluster) -> None:
    """Also functions of PostgreSQL's own, which do what bob's expression says, and what types have in them."""
    ask(trapped, 1, "bob", TYPES)
    query = (
        "select string_agg(concat_ws(' ', what, code, owner), '; ')"
        " from shardman.untrusted_code(array['app.made'::regclass])"
    )
    checks = {
        f"alter table app.made add constraint c check ({e}) not valid": s for e, s in TOLD.items()
    }
    for statement, said in {**checks, **MADE}.items():
        with as_role(trapped, 1, "bob") as bob:
            bob.execute("set shardman.ddl = 'here'")
            bob.execute(statement.encode())
            assert said in trapped.value(1, query), statement
            bob.execute(
                "alter table app.made drop constraint if exists c; drop trigger if exists c on app.made; drop"
                " rule if exists c on app.made; drop statistics if exists app.c; drop index if exists app.c"
            )
    here = "set shardman.ddl = 'here'; "
    ask(trapped, 1, "bob", f"{here}alter table app.made drop s, add check ({HARMLESS})")
    assert trapped.value(1, query) is None
    ask(
        trapped,
        1,
        "bob",
        f"{here}drop table app.made; drop type app.span; drop type app.mood; drop domain app.checked",
    )
    loot(trapped)
    unharmed(trapped)


#: Bob's, called by whoever analyzes his table; it tries whatever of ours goes by who is logged in.
DEPUTY = """
set shardman.ddl = 'here';
create table app.heard (what text);
create function app.hear(text) returns void language sql as $$ insert into app.heard values ($1) $$;
create function app.deputy(int) returns int language plpgsql immutable as $$
declare
    change constant text := quote_literal(jsonb_build_object(
        'id', gen_random_uuid(), 'statement', 'alter role mallory superuser', 'tag', 'GRANT', 'target', '',
        'tables', '[]'::jsonb, 'path', 'pg_catalog', 'made_at', now(), 'nodes', '[0, 1, 2, 3]'::jsonb));
    call   text;
begin
    if current_user <> session_user then
        foreach call in array array[
            format('note_change(%s)', change), format('note_owners_change(%s)', change),
            format('note_cluster_change(%s)', change), 'set_aside_for_cast(''app.acc'')',
            'rename_table(''app.acc'', ''app.gone'')',
            'drop_foreign_key(''app.acc'', ''x'')', 'first_part(repeat(''0'', 32), ''{}'')']
        loop
            begin
                execute 'select shardman.' || call;
                perform app.hear(call);
            exception when others then
                perform app.hear(sqlstate);
            end;
        end loop;
    end if;
    return $1;
end $$;
create table app.looked (id int);
insert into app.looked select generate_series(1, 2);
create index on app.looked (app.deputy(id));
"""


def test_who_is_logged_in_is_not_who_asks(trapped: Cluster) -> None:
    """An autovacuum's session is a superuser's, and runs functions of whoever owns a table, as him."""
    ask(trapped, 1, "bob", DEPUTY)
    trapped.sql(1, "analyze app.looked")
    assert trapped.sql(1, "select distinct what from app.heard") == [("42501",)]
    noted = "select count(*) from shardman.schema_changes where statement ~ 'mallory'"
    assert [trapped.value(n, noted) for n in NODES] == [0, 0, 0, 0]
    ask(trapped, 1, "bob", "set shardman.ddl = 'here'; drop table app.looked, app.heard")
    unharmed(trapped)


#: What of bob's PostgreSQL looks up by name, or runs when it reads a table or plans a statement over it.
SHADOWS = """
create function app.now() returns timestamptz language plpgsql volatile as
 $$ begin perform app.capture(); return clock_timestamp(); end $$;
create function app.eq(app.acc, app.acc) returns bool language plpgsql as
 $$ begin return app.capture(); end $$;
create operator app.= (leftarg = app.acc, rightarg = app.acc, function = app.eq);
create function app.text_eq(text, text) returns bool language plpgsql as
 $$ begin return app.capture(); end $$;
create operator app.= (leftarg = text, rightarg = text, function = app.text_eq);
create function app.to_int(app.acc) returns int language plpgsql as
 $$ begin perform app.capture(); return 0; end $$;
create cast (app.acc as int) with function app.to_int(app.acc) as implicit;
create function app.slow(text) returns text language plpgsql immutable as
 $$ begin perform app.capture(); return $1; end $$;
create view app.seen as select *, app.capture() from app.acc;
create table app.pg_class (oid oid, relname name, relowner oid);
create table app.hearsay (id int);
create rule r as on insert to app.hearsay do also select app.capture();
"""


def test_what_is_looked_up_by_name_or_run_by_the_planner(trapped: Cluster) -> None:
    """Views, rules, casts, operators, statistics and relations in the way, in bob's path and in his pg_temp."""
    for node in NODES:
        with as_role(trapped, node, "bob") as conn:
            conn.execute("set shardman.ddl = 'here'")
            conn.execute(SHADOWS.encode())
            if node == home(trapped, "app.acc_2"):
                conn.execute("create statistics app.s on app.slow(note), id from app.acc_2_data")
    temporary = "create temp view {} as select app.capture() as oid, 'x'::name as nspname"
    with as_role(trapped, 1, "bob") as held:
        held.execute("set search_path = app, pg_temp, public")
        for name in ("pg_class", "pg_roles", "pg_namespace", "partitions"):
            held.execute(temporary.format(name).encode())
        for query in (
            "select shardman.find_relation('app.acc')",
            "select shardman.data_table('acc_1')",
            "select * from shardman.partitions",
        ):
            with suppress(psycopg.Error):
                held.execute(query.encode())
        for node in NODES:
            everywhere_path = "alter role postgres set search_path = app, public"
            trapped.sql(node, everywhere_path.encode())
        ask(trapped, 1, "bob", "select count(seen) from app.seen")
        assert loot(trapped) == {("bob", False)}
        try:
            here = home(trapped, "app.acc_2")
            copies = trapped.sql(
                0, "select owner from shardman.partitions where part_name = 'app.acc_2'"
            )
            there = next(n for n in (1, 2, 3) if (n,) not in copies)
            # What is constant in its expression is computed by whoever plans a query of the table.
            with pytest.raises(psycopg.Error, match=r"statistics s of app\.acc_2_data"):
                trapped.sql(here, "select shardman.content_hash('app.acc_2_data')")
            ask(trapped, here, "bob", "set shardman.ddl = 'here'; drop statistics app.s")
            done = trapped.cmd("select shardman.move_part('app.acc_2', %s, %s)", (there, here))
            assert done.status == "success", done
            for node in NODES:
                trapped.sql(node, "select shardman.reconcile()")
            # It reads all catalogs as the cluster's role, whatever it finds.
            check(trapped.lord_dsn, patience=0)
        finally:
            for node in NODES:
                trapped.sql(node, "alter role postgres reset search_path")
    assert not any(super_ for _, super_ in loot(trapped)), done
    unharmed(trapped)


def test_after_a_move_and_a_failover(trapped: Cluster) -> None:
    here = home(trapped, "app.acc_0")
    copies = trapped.sql(0, "select owner from shardman.partitions where part_name = 'app.acc_0'")
    there = next(n for n in (1, 2, 3) if (n,) not in copies)
    done = trapped.cmd("select shardman.move_part('app.acc_0', %s, %s)", (there, here))
    assert done.status == "success", done
    reaches(trapped, "carol")
    unharmed(trapped)
    trapped.kill_node(3)
    reaches(trapped, "bob", (0, 1, 2))
    ask(trapped, 1, "carol", "update app.acc set note = 'later'")
    assert loot(trapped, (1, 2)) <= {("carol", False)}
    with as_role(trapped, 1, "bob") as conn:
        target = route(trapped, 1)
        repoint(conn, target, "shardman", "local")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(sql.SQL("delete from {}").format(sql.SQL(target)))
        repoint(conn, target, "app", part_of(target))
    trapped.start_node(3)
    # What it had is set aside, which ends sessions there, and copied anew.
    assert check(trapped.lord_dsn, patience=60) == []
    reaches(trapped, "carol")
    unharmed(trapped)


def test_rights_come_and_go(trapped: Cluster) -> None:
    everywhere(trapped, "revoke all on app.acc from carol; grant select on app.acc to mallory")
    reaches(trapped, "mallory")
    for node in NODES:
        eventually(
            f"nothing of carol's is left on node {node}",
            lambda node=node: trapped.value(
                node,
                "select (select count(*) from pg_user_mappings where usename = 'carol')"
                " + (select count(*) from pg_roles where rolname = 'shardman_carol')",
            ),
            until=lambda n: n == 0,
            seconds=30,
        )
        for part in ("acc_0", "acc_1"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ask(trapped, node, "carol", f"select * from app.{part}")
        trapped.sql(node, "drop role carol")
