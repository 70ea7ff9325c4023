"""shardman init: repeatable, safe beside itself, and plain about what a server lacks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cluster.pictures import picture
from shardman.errors import UserError
from shardman.pg.initialize import initialize
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory


@pytest.fixture(scope="module")
def server(module_cluster_factory: ClusterFactory) -> Cluster:
    return module_cluster_factory(workers=0, bare=True)


@pytest.fixture
def database(server: Cluster, request: pytest.FixtureRequest) -> str:
    """An empty database of the test's own."""
    name = f"db{abs(hash(request.node.name)) % 10**9}"
    server.sql(0, sql.SQL("create database {}").format(sql.Identifier(name)))
    return make_conninfo(server.lord_dsn, dbname=name)


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchall()


def init(dsn: str, advertise: str | None = None) -> str:
    return asyncio.run(initialize(dsn, advertise))


def test_repeated_it_changes_nothing(database: str) -> None:
    cluster = init(database)
    before = picture(database)
    versions = rows(database, "select xmin, ctid from shardman.nodes")
    assert init(database) == cluster
    assert picture(database) == before
    assert rows(database, "select xmin, ctid from shardman.nodes") == versions
    assert f"publication shardman_meta_{cluster}" in before


def test_two_at_once_make_one_cluster(database: str) -> None:
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "shardman", "init", database],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(3)
    ]
    said = {program.communicate(timeout=180)[0] for program in programs}
    assert [program.returncode for program in programs] == [0, 0, 0], said
    (words,) = said
    ((cluster,),) = rows(database, "select cluster from shardman.local")
    assert str(cluster) in words


def test_what_it_writes_down(database: str) -> None:
    given = conninfo_to_dict(database)["password"]
    init(make_conninfo(database, application_name="mine", connect_timeout=3))
    ((connstring, options, secret),) = rows(
        database,
        "select connstring, options, password from shardman.nodes"
        " join shardman.node_secrets on node_id = id",
    )
    assert str(given) not in str(connstring)
    assert isinstance(options, dict)
    assert set(options) == {"host", "port", "dbname", "user"}
    assert secret == given
    ((join, aggregate),) = rows(
        database,
        "select current_setting('enable_partitionwise_join'),"
        " current_setting('enable_partitionwise_aggregate')",
    )
    assert (join, aggregate) == ("on", "on")


def test_an_advertised_address_stays_until_another_is_given(database: str) -> None:
    def options() -> object:
        return rows(database, "select options ->> 'host' from shardman.nodes")[0][0]

    init(database, "host=lord.example password=hush sslmode=require application_name=x")
    assert options() == "lord.example"
    init(database)
    assert options() == "lord.example"
    init(database, "host=other.example")
    assert options() == "other.example"
    assert "hush" not in str(rows(database, "select * from shardman.nodes, shardman.settings"))
    with pytest.raises(UserError, match="service"):
        init(database, "service=lord")


def test_settings_of_the_user_stay(server: Cluster, database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    server.sql(
        0,
        sql.SQL("alter database {} set enable_partitionwise_join = off").format(
            sql.Identifier(str(name))
        ),
    )
    init(database)
    ((value,),) = rows(database, "select current_setting('enable_partitionwise_join')")
    assert value == "off"


def test_a_worker_is_refused_and_stays_as_it_is(database: str) -> None:
    init(database)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("update shardman.local set node_id = 3, lord = false")
        conn.execute("drop function shardman.my_id() cascade")
    before = picture(database)
    with pytest.raises(UserError, match="is worker 3 of cluster"):
        init(database)
    assert picture(database) == before


def test_a_strange_schema_of_the_name_is_refused(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("create schema shardman create table mine (id int)")
    before = picture(database)
    with pytest.raises(UserError, match="schema shardman that is not ours"):
        init(database)
    assert picture(database) == before


def test_roles_with_fewer_rights_are_refused(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("create role weak login password 'weak'")
    # Which rights: test_no_superuser.py.
    with pytest.raises(
        UserError, match=r"weak (lacks rights|is not a superuser, and the server is PostgreSQL 15)"
    ):
        init(make_conninfo(database, user="weak", password="weak"))


@pytest.mark.parametrize(
    "dsn",
    [
        "host=127.0.0.1 password=hu sh",
        "host=127.0.0.1 passwort=hush",
        "postgresql://joe:hush@127.0.0.1:none/db",
        "postgresql://joe:hush@127.0.0.1:1/db?connect_timeout=1",
    ],
)
def test_passwords_are_never_echoed(dsn: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shardman", "init", dsn],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PGCONNECT_TIMEOUT": "2"},
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "hush" not in said
    assert '"sh"' not in said
    assert said.startswith("error: ")
    assert "Traceback" not in said


def test_every_setting_that_does_not_do_is_named(cluster_factory: ClusterFactory) -> None:
    server = cluster_factory(
        workers=0,
        bare=True,
        settings={
            "wal_level": "replica",
            "max_prepared_transactions": 0,
            "max_replication_slots": 1,
            "max_wal_senders": 0,
            "max_logical_replication_workers": 1,
            "max_worker_processes": 2,
        },
    )
    with pytest.raises(UserError) as refused:
        init(server.lord_dsn)
    assert "wal_level is replica, logical is needed" in str(refused.value)
    for words in (
        "max_prepared_transactions is 0, at least 1 is needed",
        "max_replication_slots is 1, at least 2",
        "max_wal_senders is 0, at least 2",
        "max_logical_replication_workers is 1, at least 2",
        "max_worker_processes is 2, at least 4",
    ):
        assert words in str(refused.value)
    assert "schema shardman" not in picture(server.lord_dsn)
