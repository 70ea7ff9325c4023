"""add_node: any connection string, every reason to refuse, and nothing left of a failure."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cluster.pictures import picture
from shardman.local.ports import HOST
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster, CommandResult
from shardman.testing.plugin import ClusterFactory
from shardman.testing.waiting import eventually

ROWS = 200
NEEDED = """
create schema app;
create function app.is_short(text) returns bool language sql immutable as 'select length($1) < 9';
create domain app.short as text check (app.is_short(value));
create function app.word() returns app.short language sql stable as $$ select 'word'::app.short $$;
create type app.mood as enum ('sad', 'ok');
create domain app.moods as app.mood[];
"""
PASSWORD = "hush'\\ 50%"


@pytest.fixture(scope="module")
def ready(module_cluster_factory: ClusterFactory) -> Cluster:
    """Two workers, and two sharded tables: one in public, one in a schema of its own. With a shared one that
    has types and functions that a new node lacks."""
    cluster = module_cluster_factory(workers=2)
    cluster.sql(1, NEEDED)
    for table in ("accounts", "app.orders"):
        name = sql.Identifier(*table.split("."))
        cluster.sql(1, sql.SQL("create table {} (id bigint primary key, v text)").format(name))
        cluster.sql(
            1,
            sql.SQL("insert into {} select i, 'v' || i from generate_series(1, %s) i").format(name),
            (ROWS,),
        )
        done = cluster.cmd("select shardman.create_hash_partitions(1, %s, 'id', 4)", (table,))
        assert done.status == "success", done
    cluster.sql(1, "alter table app.orders add s app.short default app.word()")
    cluster.sql(1, "create table app.lands (id int primary key, m app.moods default '{ok}')")
    done = cluster.cmd("select shardman.create_shared_table('app.lands', 1)")
    assert done.status == "success", done
    return cluster


@pytest.fixture(scope="module")
def spare(ready: Cluster) -> Iterator[str]:
    """A server beside the cluster: with a password for joe, IPv6 and a socket."""
    server = ready.local.add_servers(1)[0]
    server.create()
    sockets = server.data.parent / "s"
    sockets.mkdir()
    server.account.give(sockets)
    server.settings = {
        "listen_addresses": f"{HOST},::1",
        "unix_socket_directories": str(sockets),
    }
    ready.local.start_servers()
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(
            sql.SQL("create role joe superuser login password {}").format(sql.Literal(PASSWORD))
        )
    yield server.dsn
    shutil.rmtree(sockets, ignore_errors=True)


@pytest.fixture
def database(spare: str, request: pytest.FixtureRequest) -> str:
    """An empty database of the test's own on the spare server."""
    return make_database(spare, f"db{abs(hash(request.node.name)) % 10**9}")


def make_database(server: str, name: str, options: str = "") -> str:
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(
            sql.SQL("create database {} {}").format(sql.Identifier(name), sql.SQL(options))  # type: ignore[arg-type]
        )
    return make_conninfo(server, dbname=name)


def add(cluster: Cluster, connstring: str, node_id: int = 0) -> CommandResult:
    return cluster.wait(
        cluster.submit("select shardman.add_node(%s)", (connstring,), node_id=node_id)
    )


def remove_newest(cluster: Cluster, dsn: str) -> None:
    """Takes the node out that was added last, and what it leaves."""
    node = cluster.value(0, "select max(id) from shardman.nodes where worker_status <> 'removed'")
    done = cluster.cmd("select shardman.rm_node(%s, true)", (node,))
    assert done.status == "success", done
    name = conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as conn:
        conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(str(name))))


def works(cluster: Cluster, dsn: str) -> None:
    """The database is a node like the others: it reads, writes, and takes commands."""
    with psycopg.connect(dsn, autocommit=True) as node:
        for table in ("accounts", "app.orders"):
            name = sql.Identifier(*table.split("."))
            row = node.execute(sql.SQL("select count(*), sum(id) from {}").format(name)).fetchone()
            assert row == (ROWS, ROWS * (ROWS + 1) // 2)
        node.execute("update accounts set v = v where id <= 10")
        assert node.execute("select 'ok' = any ('{ok}'::app.moods)").fetchone() == (True,)
        with pytest.raises(psycopg.errors.CheckViolation):
            node.execute("update app.orders set s = 'much too long'")
        row = node.execute("select count(*) from shardman.drift").fetchone()
        assert row == (0,)
        row = node.execute("select shardman.rebalance('accounts')").fetchone()
        assert row is not None
        assert cluster.wait(int(row[0])).status == "done"
    # And back again, for the next one.
    for (part,) in cluster.sql(
        0,
        "select part_name from shardman.partitions"
        " where owner = (select max(id) from shardman.nodes where worker_status = 'active')",
    ):
        assert cluster.cmd("select shardman.move_part(%s, 1)", (part,)).status == "success"
    assert check(cluster.lord_dsn, data=True) == []


def uri(dsn: str) -> str:
    p = conninfo_to_dict(dsn)
    return f"postgresql://joe:hush%27%5C%2050%25@{HOST}:{p['port']}/{p['dbname']}?sslmode=disable"


def several_hosts(dsn: str) -> str:
    p = conninfo_to_dict(dsn)
    return make_conninfo(dsn, host=f"{HOST},{HOST}", port=f"1,{p['port']}")


def socket(dsn: str) -> str:
    with psycopg.connect(dsn) as conn:
        row = conn.execute("show unix_socket_directories").fetchone()
    assert row is not None
    return make_conninfo(dsn, host=row[0])


def ipv6_uri(dsn: str) -> str:
    p = conninfo_to_dict(dsn)
    return f"postgresql://postgres:{p['password']}@[::1]:{p['port']}/{p['dbname']}"


@pytest.mark.parametrize(
    "form",
    [uri, several_hosts, socket, ipv6_uri],
    ids=lambda f: f.__name__ if callable(f) else "",
)
def test_any_connection_string_will_do(ready: Cluster, database: str, form: object) -> None:
    assert callable(form)
    before = picture(ready.lord_dsn)
    done = add(ready, form(database))
    assert done.status == "success", done
    works(ready, database)
    remove_newest(ready, database)
    assert {p for p in picture(ready.lord_dsn) if not p.startswith("node ")} == {
        p for p in before if not p.startswith("node ")
    }


def test_a_service_is_resolved_for_the_others(
    ready: Cluster, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = conninfo_to_dict(database)
    file = tmp_path / "pg_service.conf"
    file.write_text(
        f"[spare]\nhost={HOST}\nport={p['port']}\ndbname={p['dbname']}\nuser=joe\n"
        f"password={PASSWORD}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    ready.stop_lord()
    ready.start_lord()
    done = add(ready, "service=spare", node_id=1)
    assert done.status == "success", done
    assert ready.sql(
        2, "select connstring, options ->> 'port' from shardman.nodes order by id desc limit 1"
    ) == [("service=spare", str(p["port"]))]
    works(ready, database)
    remove_newest(ready, database)


def test_a_password_shows_up_nowhere(ready: Cluster, database: str) -> None:
    assert (
        add(ready, make_conninfo(database, user="joe", password=PASSWORD + "x")).status == "failed"
    )
    assert add(ready, make_conninfo(database, user="joe", password=PASSWORD)).status == "success"
    remove_newest(ready, database)
    shown = " ".join(
        str(ready.sql(node, sql.SQL(query)))
        for node in (0, 1)
        for query in (
            "select * from shardman.cmd_log",
            "select * from shardman.cmd_opts",
            "select * from shardman.commands",
            "select * from shardman.nodes",
            "select * from shardman.cmd_steps",
            "select * from shardman.cmd_secrets",
            "select * from shardman.node_secrets",
            "select * from shardman.problems",
        )
    )
    logs = "".join(f.read_text() for f in (ready.local.directory / "log").glob("*.log"))
    assert "hush" not in shown
    assert "hush" not in logs
    assert "password authentication failed" in shown


@pytest.mark.parametrize(
    ("connstring", "words"),
    [
        (f"host={HOST} port=1 dbname=x user=postgres", "cannot reach 127.0.0.1:1/x"),
        ("host=no.such.host.invalid dbname=x", "no.such.host.invalid"),
    ],
)
def test_an_address_that_leads_nowhere(ready: Cluster, connstring: str, words: str) -> None:
    done = add(ready, connstring)
    assert done.status == "failed"
    assert words in (done.error or "")


def test_members_are_refused(ready: Cluster) -> None:
    port = conninfo_to_dict(ready.dsn(1))["port"]
    password = ready.password
    lord = conninfo_to_dict(ready.lord_dsn)["port"]
    for connstring, words in (
        (ready.dsn(1), "is node 1 already"),
        (
            f"host=localhost port={port} dbname=postgres user=postgres password={password}",
            "is node 1 already",
        ),
        (
            f"host=localhost port={lord} dbname=postgres user=postgres password={password}",
            "the nodes know as",
        ),
    ):
        done = add(ready, connstring)
        assert done.status == "failed"
        assert words in (done.error or ""), done
    assert check(ready.lord_dsn) == []


def test_malformed_strings_are_errors_at_the_call(ready: Cluster) -> None:
    for connstring in ("", "host", "host=x passwort=hush", "postgresql://a:hu sh@h:x/d", None):
        with pytest.raises(psycopg.Error) as error:
            ready.submit("select shardman.add_node(%s)", (connstring,), node_id=1)
        assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("template template0 encoding LATIN1 locale 'C'", "encoding is LATIN1, the lord's is UTF8"),
        ("template template0 lc_collate 'POSIX'", "collation is C, the lord's is C.UTF-8"),
    ],
)
def test_text_must_be_alike(ready: Cluster, spare: str, options: str, words: str) -> None:
    dsn = make_database(spare, f"text{abs(hash(options)) % 10**9}", options)
    before = picture(dsn)
    done = add(ready, dsn)
    assert done.status == "failed"
    assert words in (done.error or ""), done
    assert picture(dsn) == before


def test_a_role_with_fewer_rights_is_refused(ready: Cluster, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("create role weak login password 'weak'")
    done = add(ready, make_conninfo(database, user="weak", password="weak"))
    assert done.status == "failed"
    assert "weak lacks rights" in (done.error or "") or "superuser" in (done.error or "")
    assert (done.code, "weak" in (done.error or "")) == ("server_unsuitable", True)


def test_a_table_in_the_way_fails_the_whole(ready: Cluster, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("create table accounts (mine int)")
        conn.execute("insert into accounts values (42)")
    everywhere = [ready.lord_dsn, ready.dsn(1), ready.dsn(2), database]
    before = [picture(dsn) for dsn in everywhere]
    done = add(ready, database)
    assert done.status == "failed"
    assert "accounts: another relation has the name" in (done.error or "")
    assert [picture(dsn) for dsn in everywhere] == before
    with psycopg.connect(database, autocommit=True) as conn:
        assert conn.execute("select mine from accounts").fetchone() == (42,)
    assert check(ready.lord_dsn) == []


def test_types_and_functions_that_mean_something_else_there_fail_it(
    ready: Cluster, database: str
) -> None:
    """They were taken for those of the tables: an enum sorted otherwise, and a domain refused rows."""
    with psycopg.connect(database, autocommit=True) as server:
        server.execute("create schema app; create type app.mood as enum ('ok', 'sad')")
        server.execute("create domain app.short as text check (value <> 'word')")
    result = ready.cmd("select shardman.add_node(%s)", (database,))
    assert result.status == "failed"
    assert "has domain app.short otherwise than" in (result.error or ""), result
    assert "create domain app.short as text constraint short_check CHECK (app.is_short(" in (
        result.error or ""
    )
    with psycopg.connect(database, autocommit=True) as server:
        assert server.execute("select enum_range(null::app.mood)::text").fetchone() == ("{ok,sad}",)
        server.execute("drop schema app cascade")


def test_a_node_that_others_cannot_reach_is_refused(ready: Cluster, database: str) -> None:
    """The shardlord finds it by hostaddr; others are told the host, which leads elsewhere."""
    before = picture(database)
    # What node 1 reaches there is another server than the one meant.
    port = conninfo_to_dict(ready.dsn(2))["port"]
    with psycopg.connect(database) as conn:
        right = conn.info.port
    done = add(
        ready,
        make_conninfo(
            database,
            host=f"{HOST},{HOST}",
            port=f"{port},{right}",
        ),
    )
    assert done.status == "failed"
    assert "does not exist" in (done.error or "") or "another server" in (done.error or ""), done
    assert picture(database) == before


def test_a_wait_for_writers_is_said_and_can_be_cancelled(ready: Cluster, database: str) -> None:
    everywhere = [ready.lord_dsn, ready.dsn(1), database]
    before = [picture(dsn) for dsn in everywhere]
    with ready.connect(0, autocommit=False) as writer:
        writer.execute("create table public.held (id int)")
        cmd = ready.submit("select shardman.add_node(%s)", (database,))
        said = eventually(
            "the command says for whom it waits",
            lambda: ready.value(0, "select waits_for from shardman.cmd_log where id = %s", (cmd,)),
            seconds=15,
        )
        assert f"pid {writer.info.backend_pid}" in said
        assert ready.value(1, "select shardman.cancel_cmd(%s)", (cmd,)) is True
        assert ready.wait(cmd, 20).status == "canceled"
        writer.rollback()
    assert [picture(dsn) for dsn in everywhere] == before


def test_a_file_copy_is_refused(ready: Cluster) -> None:
    copy = ready.local.add_servers(1)[0]
    original = ready.local.server(2)
    original.stop()
    shutil.copytree(original.data, copy.data, symlinks=True)
    for each in (copy.data, *copy.data.rglob("*")):
        copy.account.give(each)
    copy.data.chmod(0o700)
    # What it had of the cluster is gone, so only its identifier tells.
    ready.start_node(2)
    ready.local.start_servers()
    with psycopg.connect(copy.dsn, autocommit=True) as conn:
        conn.execute("create database other")
    done = add(ready, make_conninfo(copy.dsn, dbname="other"))
    assert done.status == "failed"
    assert "copy of node 2's" in (done.error or "")
    copy.stop()


def test_while_a_node_is_down_another_can_be_added(ready: Cluster, database: str) -> None:
    """Its rows cannot be reached meanwhile; when it is back it knows the new node."""
    ready.stop_node(2, "immediate")
    done = add(ready, database)
    ready.start_node(2)
    assert done.status == "success", done
    assert "Node 2 could not be reached and will follow" in (done.result or "")
    node = ready.value(0, "select max(id) from shardman.nodes")
    query = "select count(*) from pg_foreign_server where srvname = 'shardman_node_' || %s"
    eventually("node 2 knows the new one", lambda: ready.value(2, query, (node,)), seconds=20)
    works(ready, database)
    remove_newest(ready, database)


def tend(dsn: str, over: Event) -> None:
    """Does what a shardlord does on its nodes, without a pause."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        while not over.is_set():
            with suppress(psycopg.Error):
                conn.execute("select shardman.reconcile()")


def test_what_a_former_cluster_left_is_cleared_but_for_rows(
    ready: Cluster, cluster_factory: ClusterFactory
) -> None:
    other = cluster_factory(workers=1)
    other.sql(1, "create table old (id int primary key, v text)")
    other.sql(1, "insert into old select i, 'v' from generate_series(1, 100) i")
    other.sql(1, "create table mine (id int)")
    done = other.cmd("select shardman.create_hash_partitions(1, 'old', 'id', 2)")
    assert done.status == "success", done
    # The shardlord of the former cluster lives, and would make the table again at any instant.
    over = Event()
    tended = Thread(target=tend, args=(other.dsn(1), over))
    tended.start()
    try:
        done = add(ready, other.dsn(1))
    finally:
        over.set()
        tended.join()
    assert done.status == "success", done
    assert "part of a cluster before" in (done.result or "")
    assert done.data is not None
    aside = [t["table"] for t in done.data["set_aside"]]
    assert len(aside) == 2
    counts = [
        other.value(1, sql.SQL("select count(*) from {}").format(sql.Identifier(t))) for t in aside
    ]
    assert sum(counts) == 100
    assert other.value(1, "select count(*) from mine") == 0
    assert other.value(1, "select to_regclass('old')") is None
    works(ready, other.dsn(1))
    node = ready.value(0, "select max(id) from shardman.nodes")
    assert done.data["node_id"] == node
    assert ready.cmd("select shardman.rm_node(%s)", (node,)).status == "success"
