"""A cluster whose role is no superuser, with the rights of docs/rights.md and no others."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from copies.dumps import database, pg_dump, restore
from docs.pages import ROOT, blocks, text
from shardman.errors import UserError
from shardman.local import Programs, daemon
from shardman.lord import identity
from shardman.nodes.invariants import check
from shardman.nodes.promotion import promote
from shardman.nodes.status import read
from shardman.pg import rights
from shardman.pg.connect import connect_async
from shardman.pg.initialize import initialize
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory
from shardman.testing.waiting import eventually

pytestmark = pytest.mark.pg(16)

PAGE = ROOT / "docs" / "rights.md"
PASSWORD = "kept-by-keeper"
NODES = range(3)
ROWS = 200


def statements(number: int) -> list[str]:
    """Of a block of SQL of the page."""
    code = [b.code for b in blocks(PAGE) if b.language == "sql"][number]
    return [s.replace("'…'", f"'{PASSWORD}'") for s in code.split(";") if s.strip()]


@dataclass
class Kept:
    """The cluster: how to connect to each of its nodes, as its role and as a superuser."""

    servers: Cluster

    def dsn(self, node: int, user: str = "keeper", password: str = PASSWORD) -> str:
        return make_conninfo(self.servers.dsn(node), dbname="app", user=user, password=password)

    def sql(self, node: int, query: str, user: str = "keeper") -> list[tuple[object, ...]]:
        password = {"keeper": PASSWORD, "postgres": self.servers.password}.get(user, user)
        with psycopg.connect(self.dsn(node, user, password), autocommit=True) as conn:
            done = conn.execute(query.encode())
            return done.fetchall() if done.description else []

    def everywhere(self, query: str) -> None:
        for node in NODES:
            self.sql(node, query, "postgres")

    def cmd(self, query: str) -> str:
        """Its error, or nothing."""
        ((cmd_id,),) = self.sql(0, query)
        self.sql(0, f"select shardman.cmd_wait({cmd_id}, '60 s')")
        ((status, error),) = self.sql(
            0, f"select status::text, error from shardman.cmd_log where id = {cmd_id}"
        )
        assert error or status in ("success", "done"), (query, status)
        return str(error or "")

    def owner(self, part: str) -> int:
        query = f"select owner from shardman.partitions where part_name = '{part}' and prv is null"
        return int(str(self.sql(0, query)[0][0]))

    def settled(self) -> None:
        for node in NODES:
            eventually(
                f"nothing is left to mend on node {node}",
                lambda node=node: self.sql(node, "select subject, message from shardman.problems"),
                until=lambda found: found == [],
                seconds=30,
            )

    def count(self, node: int, table: str, user: str) -> object:
        try:
            return self.sql(node, f"select count(*) from {table}", user)[0][0]
        except psycopg.Error as error:
            return str(error)

    def reaches(self, table: str, user: str, *nodes: int) -> None:
        for node in nodes:
            eventually(
                f"{user} sees all of {table} on node {node}",
                lambda node=node: self.count(node, table, user),
                until=lambda n: n == ROWS,
                seconds=30,
            )


#: For a table that belongs to nobody of the cluster's.
TOUCH = """
create function app.touch() returns trigger language plpgsql as
    'begin new.who := new.who || ''!''; return new; end';
create trigger touch before update on app.b for each row execute function app.touch();
"""


@pytest.fixture(scope="module")
def bare(module_cluster_factory: ClusterFactory) -> Kept:
    kept = Kept(module_cluster_factory(workers=2, bare=True))
    for node in NODES:
        for statement in statements(0):
            kept.servers.sql(node, statement.encode())  # type: ignore[arg-type]
        for statement in statements(1):
            kept.sql(node, statement, "postgres")
        for role in ("bob", "alice"):
            kept.sql(node, f"create role {role} login password '{role}'", "postgres")
        kept.sql(node, "create schema app authorization bob", "postgres")
    return kept


@pytest.fixture(scope="module")
def kept(bare: Kept) -> Iterator[Kept]:
    log = bare.servers.local.directory / "log"
    daemon.init(bare.dsn(0), log / "init.log")
    bare.servers.local.state.shardlord = daemon.start(bare.dsn(0), log / "shardlord.log")
    ids = [bare.sql(0, f"select shardman.add_node('{bare.dsn(n)}')")[0][0] for n in (1, 2)]
    for cmd_id in ids:
        bare.sql(0, f"select shardman.cmd_wait({cmd_id}, '60 s')")
    done = bare.sql(0, "select status::text, error from shardman.cmd_log order by id")
    assert done == [("success", None)] * 2
    yield bare
    assert bare.sql(1, "select rolsuper from pg_roles where rolname = 'keeper'") == [(False,)]


def missing(dsn: str) -> dict[str, str]:
    async def ask() -> list[rights.Right]:
        async with await connect_async(dsn) as conn:
            return await rights.missing(conn)

    return {right.what: right.give for right in asyncio.run(ask())}


def test_the_page_lists_what_is_asked_for(bare: Kept) -> None:
    """And each statement gives the right beside it."""
    with bare.servers.connect(0) as admin:
        admin.execute("create role weak login password 'weak'")
        admin.execute("create database wanting")
    dsn = make_conninfo(bare.dsn(0), dbname="wanting", user="weak", password="weak")
    lacking = missing(dsn)
    told = dict(re.findall(r"^\| (\S.*?) \| `(.*?)` \|", text(PAGE), re.MULTILINE))
    spoken = {
        what: give.replace("weak", "keeper").replace("wanting", "app")
        for what, give in lacking.items()
    }
    password = {"a password": "alter role keeper password '…'"}
    assert {**spoken, **password} == told
    with pytest.raises(UserError) as refused:
        asyncio.run(initialize(dsn))
    assert all(what in refused.value.what for what in lacking)
    assert all(give in refused.value.hint for give in lacking.values())
    wanting = make_conninfo(bare.servers.dsn(0), dbname="wanting")
    with psycopg.connect(wanting, autocommit=True) as admin:
        for what, give in lacking.items():
            assert what in missing(dsn)
            admin.execute(give.encode())
            assert what not in missing(dsn)
    assert missing(dsn) == {}


def test_a_table_of_its_own(kept: Kept) -> None:
    kept.sql(1, f"create table t as select id, 0 as n from generate_series(1, {ROWS}) id")
    kept.sql(1, "alter table t add primary key (id)")
    assert kept.cmd("select shardman.create_hash_partitions(1, 't', 'id', 3)") == ""
    kept.reaches("t", "keeper", *NODES)
    # A superuser goes to other nodes as the cluster's role.
    kept.reaches("t", "postgres", 0, 2)


def test_a_table_of_another_role(kept: Kept) -> None:
    kept.sql(2, "create table app.b (id int primary key, who text default current_user)", "bob")
    kept.sql(2, f"insert into app.b select generate_series(1, {ROWS})", "bob")
    kept.sql(2, "grant select on app.b to alice; grant usage on schema app to alice", "bob")
    kept.sql(2, "alter table app.b enable row level security, force row level security", "bob")
    kept.sql(2, "create policy p on app.b using (true) with check (id > 0)", "bob")
    shard = "select shardman.create_hash_partitions(2, 'app.b', 'id', 3)"
    wanted = "GRANT bob TO keeper WITH ADMIN OPTION"
    assert wanted in kept.cmd(shard)
    kept.sql(2, wanted, "postgres")
    refused = kept.cmd(shard)
    assert "node 0 cannot have app.b" in refused and wanted in refused
    kept.everywhere(wanted)
    kept.sql(2, TOUCH, "bob")
    assert kept.cmd(shard) == ""
    kept.reaches("app.b", "bob", *NODES)
    eventually(
        "node 1 says what alice's road login needs",
        lambda: kept.sql(1, "select message from shardman.problems"),
        until=lambda found: "GRANT alice TO keeper WITH ADMIN OPTION" in str(found),
        seconds=30,
    )
    assert not any(node.spreads_ddl for node in read(kept.dsn(1)).nodes)
    kept.everywhere("grant alice to keeper with admin option; grant usage on schema app to alice")
    kept.settled()
    kept.reaches("app.b", "alice", *NODES)
    for node in NODES:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            kept.sql(node, "delete from app.b", "alice")
    kept.sql(1, "insert into app.b (id) values (-1)", "keeper")
    kept.sql(0, "delete from app.b where id = -1", "keeper")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        kept.sql(1, f"insert into app.b select -i from generate_series(1, {ROWS}) i", "bob")


def test_what_a_client_has_left_prepared_is_ended(kept: Kept) -> None:
    """By who has prepared it: nobody else but a superuser may."""
    eventually(
        "bob is let in",
        lambda: all(
            kept.sql(n, "select has_schema_privilege('bob', 'shardman', 'usage')")[0][0]
            for n in (1, 2)
        ),
    )
    with psycopg.connect(kept.dsn(1, "bob", "bob")) as first:
        ((gid,),) = first.execute(
            "select shardman.first_part(md5(random()::text), array[2])"
        ).fetchall()
        kept.sql(
            2,
            f"begin; select shardman.other_part('{gid}'); prepare transaction '{gid}'",
            "bob",
        )
        first.commit()
    prepared = f"select count(*) from pg_prepared_xacts where gid = '{gid}'"
    assert kept.sql(2, prepared) == [(1,)]
    eventually("it is ended", lambda: kept.sql(2, prepared) == [(0,)], seconds=15)


def test_bob_writes_on_both_nodes_or_on_none(kept: Kept) -> None:
    """By shardman.atomic, once a superuser has made dblink."""
    kept.sql(1, "create extension dblink", "postgres")
    find = (
        "select k from generate_series(1, 60) k, shardman.partition_of('app.b', k) p where p.node = {}"
        " limit 1"
    )
    keys = [kept.sql(1, find.format(node), "bob")[0][0] for node in (1, 2)]
    steps = [
        {
            "table": "app.b",
            "key": k,
            "sql": "update app.b set id = id where id = $1::int",
            "params": [k],
        }
        for k in keys
    ]
    with psycopg.connect(kept.dsn(1, "bob", "bob"), autocommit=True) as bob:
        done = bob.execute("call shardman.atomic(%s, null)", (json.dumps(steps),)).fetchone()
    assert done == ([1, 1],)


def test_a_table_of_a_superuser_is_refused(kept: Kept) -> None:
    kept.sql(1, "create table s (id int primary key)", "postgres")
    error = kept.cmd("select shardman.create_hash_partitions(1, 's', 'id', 3)")
    assert "Give the table to a role that is no superuser" in error


def test_copies_move_and_take_over(kept: Kept) -> None:
    there = 3 - kept.owner("app.b_0")
    assert kept.cmd(f"select shardman.move_part('app.b_0', {there})") == ""
    assert kept.owner("app.b_0") == there
    for table in ("t", "app.b"):
        assert kept.cmd(f"select shardman.set_replevel('{table}', 1)") == ""
    kept.sql(1, "update app.b set who = 'new'", "bob")
    kept.servers.kill_node(there)
    left = 3 - there
    kept.reaches("app.b", "bob", 0, left)
    kept.sql(0, "update app.b set who = 'newer'", "bob")
    # Its trigger has been taken over, too.
    assert kept.sql(left, "select distinct who from app.b", "bob") == [("newer!",)]
    kept.servers.start_node(there)
    kept.reaches("app.b", "bob", there)
    kept.settled()
    for table in ("t", "app.b"):
        assert kept.cmd(f"select shardman.rebalance('{table}')") == ""
    assert check(kept.dsn(1), data=True, patience=60) == []


def test_who_loses_his_rights_loses_his_login(kept: Kept) -> None:
    login = "select count(*) from pg_roles where rolname = 'shardman_alice'"
    assert kept.sql(1, login) == [(1,)]
    for node in NODES:
        kept.sql(node, "revoke all on app.b from alice", "bob")
    eventually(
        "the login is gone",
        lambda: [kept.sql(node, login) for node in NODES],
        until=lambda found: found == [[(0,)]] * len(NODES),
        seconds=30,
    )


def test_an_ordinary_role_gains_nothing(kept: Kept) -> None:
    """What acts as the cluster's role is not for him, and what he is given shows no password."""
    for query in (
        "select shardman.add_node('host=x')",
        "select * from shardman.mapping_proofs",
        "set role keeper",
        "alter role keeper password 'x'",
        "alter role shardman_bob password 'x'",
        "create user mapping for bob server shardman_node_2",
        "alter server shardman_node_2 options (set host 'x')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            kept.sql(1, query, "bob")
    shown = kept.sql(1, "select distinct umoptions from pg_user_mappings", "bob")
    assert shown == [(None,)]
    contained = kept.sql(
        1,
        "select count(*) from pg_foreign_server s where not shardman.left_out('pg_foreign_server', s.oid)",
    )
    assert contained == [(0,)]


def test_a_dump_has_no_way_back(kept: Kept, pg_programs: Programs) -> None:
    """With what a superuser adds, as the page has it, it restores without an error."""
    (added,) = re.findall(r"`(create foreign data wrapper .*?)`", text(PAGE), re.DOTALL)
    admin = kept.dsn(1, "postgres", kept.servers.password)
    kept.sql(1, added, "postgres")
    eventually(
        "servers have what stands in for them",
        lambda: kept.sql(
            1, "select count(*) from pg_foreign_server where srvname ~ 'stand_in_for'"
        ),
        until=lambda n: n == [(3,)],
        seconds=30,
    )
    dump = pg_dump(pg_programs, admin, "--no-subscriptions")
    assert PASSWORD not in dump and "CREATE USER MAPPING" not in dump
    with database(admin, "copied") as copy:
        restore(pg_programs, copy, dump)


def test_ddl_reaches_all_nodes_where_a_superuser_lets_it(kept: Kept) -> None:
    add = "alter table app.b add column {} text"
    has = "select count(*) from pg_attribute where attrelid = 'app.b'::regclass and attname = '{}'"
    kept.sql(1, add.format("here"), "bob")
    assert [kept.sql(node, has.format("here")) for node in NODES] == [[(0,)], [(1,)], [(0,)]]
    for node in (0, 2):
        kept.sql(node, add.format("here"), "bob")
    kept.everywhere("select shardman.make_event_triggers()")
    kept.sql(1, add.format("everywhere"), "bob")
    assert [kept.sql(node, has.format("everywhere")) for node in NODES] == [[(1,)]] * len(NODES)
    assert all(node.spreads_ddl for node in read(kept.dsn(1)).nodes)
    kept.sql(1, "drop trigger touch on app.b", "bob")
    kept.sql(2, "update app.b set who = 'plain'", "bob")
    assert kept.sql(0, "select distinct who from app.b", "bob") == [("plain",)]
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="has set aside"):
        kept.sql(2, "drop table app.b", "bob")


def test_a_superuser_does_not_act_as_the_cluster(kept: Kept) -> None:
    """What he makes the cluster's role could not change."""
    dsn = kept.dsn(0, "postgres", kept.servers.password)
    for work in (initialize(dsn), identity.check(dsn)):
        with pytest.raises(UserError, match="shardman of keeper") as refused:
            asyncio.run(work)
        assert refused.value.hint.startswith("Connect as that role")


def test_nodes_and_tables_go(kept: Kept) -> None:
    for table in ("t", "app.b"):
        assert kept.cmd(f"select shardman.set_replevel('{table}', 0)") == ""
    assert kept.cmd("select shardman.drop_table('t', aside => true)") == ""
    assert kept.cmd("select shardman.drain_node(2)") == ""
    assert kept.cmd("select shardman.rm_node(2)") == ""
    assert kept.sql(2, "select to_regnamespace('shardman')") == [(None,)]
    kept.reaches("app.b", "bob", 0, 1)
    leftovers = "select rolname from pg_roles where rolname ~ '^shardman_' order by 1"
    eventually(
        "its road logins are gone",
        lambda: kept.sql(2, leftovers),
        until=lambda found: found == [("shardman_operator",), ("shardman_viewer",)],
    )


def test_a_worker_becomes_the_lord(kept: Kept) -> None:
    said: list[str] = []
    done = asyncio.run(promote(kept.dsn(1), 1, force=False, say=said.append))
    assert done.node == 1
    local = kept.servers.local
    local.state.shardlord = daemon.start(kept.dsn(1), local.directory / "log" / "second.log")
    kept.sql(1, "create table l (id int primary key)")
    ((cmd_id,),) = kept.sql(1, "select shardman.create_hash_partitions(1, 'l', 'id', 2)")
    kept.sql(1, f"select shardman.cmd_wait({cmd_id}, '60 s')")
    query = f"select status::text, error from shardman.cmd_log where id = {cmd_id}"
    assert kept.sql(1, query) == [("success", None)]


#: What is asked for only where it is allowed, or by a person who is told what is missing, and a catalog of
#: which only the changes are counted.
LEFT_OUT = {"pg_read_file", "pg_create_restore_point", "pg_authid", "pg_user_mapping"}


def test_all_that_is_named_in_the_code_is_allowed(bare: Kept) -> None:
    """Also what is asked for seldom."""
    source = [path.read_text() for path in (ROOT / "src" / "shardman").rglob("*") if _runs(path)]
    named = sorted(set(re.findall(r"\bpg_[a-z_]+", "\n".join(source))) - LEFT_OUT)
    query = """
        select array_agg(name) from unnest(%s::text[]) as name
         where (select not bool_or(has_function_privilege(oid, 'execute')) from pg_proc
                 where proname = name and pronamespace = 'pg_catalog'::regnamespace)
            or (select not bool_or(has_any_column_privilege(oid, 'select')) from pg_class
                 where relname = name and relnamespace = 'pg_catalog'::regnamespace)
    """
    with psycopg.connect(bare.dsn(1)) as conn:
        assert conn.execute(query, (named,)).fetchone() == (None,)
        (secret,) = (
            conn.execute("select has_table_privilege('pg_authid', 'select')").fetchone() or ()
        )
        assert not secret


def _runs(path: Path) -> bool:
    """Whether a cluster runs it, and not what tries one."""
    return path.suffix in (".sql", ".py") and not {"testing", "demo", "local"} & {*path.parts}


def test_the_cluster_has_asked_for_nothing_that_it_may_not(kept: Kept) -> None:
    """What looks regularly, and is refused, would otherwise be noticed by nobody."""
    logs = (kept.servers.local.directory / "log").glob("*.log")
    refused = {
        line.partition("ERROR:")[2]
        for log in logs
        for line in log.read_text().splitlines()
        if "shardman" in line.partition("ERROR:")[0]
        and re.search("permission denied|must be", line)
    }
    assert refused == set()
