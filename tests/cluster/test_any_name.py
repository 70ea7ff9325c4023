"""A cluster whose role, databases and tables have names that nobody expects."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from shardman.local import daemon
from shardman.nodes.invariants import check
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory
from shardman.testing.waiting import eventually


def long(name: str, size: int = 63) -> str:
    """The name, filled up to what PostgreSQL allows."""
    return name + "x" * (size - len(name.encode()))


#: The cluster's role, and that of the application, each of 63 bytes.
ROLE = long('"Ad min".é%s\'\\ {0} $1 -- ')
USER = long('O\'Ñeil "%d" a=b,c;\\')
DATABASES = [
    long('Da "ta".bä%s\'\\ $1 {x}'),
    "UPPER a=b;c='d',é\\",
    "postgresql://x:y@z/%41?q#f",
]
SCHEMA = long('Sch "e.ma" %s\'\\ ü')
#: With what is added to it, it has 63 bytes.
TABLE = long("We.ird %s \"x\" 'é' \\ $1 {} Ta", 55)
COLUMNS = ['I d."%s"\'\\é', "select", long("N o\"t%e'é"), "N"]
SIZE = 120


@dataclass
class Odd:
    """The cluster: how to connect to each of its nodes."""

    servers: Cluster
    dsns: list[str]

    def connect(self, node: int, **options: str) -> SyncConnection:
        return psycopg.connect(make_conninfo(self.dsns[node], **options), autocommit=True)

    def cmd(self, query: str, *params: object) -> None:
        with self.connect(1) as conn:
            (cmd_id,) = conn.execute(query.encode(), params).fetchone() or (None,)
            conn.execute("select shardman.cmd_wait(%s, '90 s')", (cmd_id,))
        with self.connect(0) as lord:
            row = lord.execute(
                "select status::text, error from shardman.cmd_log where id = %s", (cmd_id,)
            ).fetchone()
        assert row is not None and row[0] in ("success", "done"), row

    def shardman(self, *arguments: str, node: int = 1) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "shardman", *arguments, "--dsn", self.dsns[node]],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def name(*parts: str) -> sql.Identifier:
    return sql.Identifier(*parts)


RELATION = name(SCHEMA, TABLE).as_string(None)
KEY = name(COLUMNS[0]).as_string(None)


def as_user(odd: Odd, node: int, query: str) -> list[tuple[object, ...]]:
    with odd.connect(node, user=USER, password="own") as conn:
        done = conn.execute(query.encode())
        return done.fetchall() if done.description else []


def count(odd: Odd, node: int) -> object:
    try:
        return as_user(odd, node, f"select count(*) from {RELATION}")[0][0]
    except psycopg.Error as error:
        return str(error)


def reaches(odd: Odd, *nodes: int) -> None:
    for node in nodes:
        eventually(
            f"all rows are seen on node {node}",
            lambda node=node: count(odd, node),
            until=lambda n: n == SIZE,
            seconds=30,
        )


def part(k: int) -> str:
    return name(SCHEMA, f"{TABLE}_{k}").as_string(None)


@pytest.fixture(scope="module")
def odd(module_cluster_factory: ClusterFactory) -> Odd:
    servers = module_cluster_factory(workers=2, bare=True)
    dsns = []
    for node, database in enumerate(DATABASES):
        with servers.connect(node) as admin:
            for statement, role in (("superuser", ROLE), ("", USER)):
                admin.execute(
                    sql.SQL("create role {} login {} password {}").format(
                        name(role), sql.SQL(statement), f"own {role}" if statement else "own"
                    )
                )
            admin.execute(sql.SQL("create database {} owner {}").format(name(database), name(ROLE)))
        dsns.append(
            make_conninfo(servers.dsn(node), dbname=database, user=ROLE, password=f"own {ROLE}")
        )
    log = servers.local.directory / "log"
    daemon.init(dsns[0], log / "init.log")
    servers.local.state.shardlord = daemon.start(dsns[0], log / "shardlord.log")
    odd = Odd(servers, dsns)
    with odd.connect(0) as lord:
        for dsn in dsns[1:]:
            (cmd_id,) = lord.execute("select shardman.add_node(%s)", (dsn,)).fetchone() or (None,)
            lord.execute("select shardman.cmd_wait(%s, '90 s')", (cmd_id,))
            row = lord.execute(
                "select status::text, error from shardman.cmd_log where id = %s", (cmd_id,)
            ).fetchone()
            assert row is not None and row[0] == "success", row
    with odd.connect(0) as conn:
        conn.execute(sql.SQL("create schema {} authorization {}").format(name(SCHEMA), name(USER)))
    return odd


TABLE_SQL = """
create sequence {sequence};
create table {table} (
    {id} bigint default nextval({regclass}), {select} text collate "C" default 'x''%s',
    {note} numeric not null, {plus} text generated always as ({select} || '"%s"') stored,
    constraint {check} check ({note} >= 0), constraint {pk} primary key ({id})
);
create index {index} on {table} (({select} || '%s'), {note}) where {note} > 1;
create statistics {stat} on {id}, {note} from {table};
comment on table {table} is 'it''s "%s" \\';
grant select ({id}), update ({note}) on {table} to public;
alter table {table} enable row level security;
create policy {policy} on {table} using ({note} >= 0 and exists (select 1 where {table}.{id} > 0));
alter sequence {sequence} owned by {table}.{id};
insert into {table} ({select}, {note}) select 'v' || i, i from generate_series(1, 120) i
"""


def test_a_table_is_sharded(odd: Odd) -> None:
    with odd.connect(1, user=USER, password="own") as conn:
        conn.execute(
            sql.SQL(TABLE_SQL).format(
                table=name(SCHEMA, TABLE),
                sequence=name(SCHEMA, long("S'eq\" %s é\\")),
                regclass=name(SCHEMA, long("S'eq\" %s é\\")).as_string(None),
                id=name(COLUMNS[0]),
                select=name(COLUMNS[1]),
                note=name(COLUMNS[2]),
                plus=name(COLUMNS[3]),
                check=name(long("C'h\"eck %s é")),
                pk=name(long("P'k\" %s é")),
                index=name(long("I'n\" %s é")),
                stat=name(SCHEMA, long("S't\" %s é")),
                policy=name(long("P'o\" %s é")),
            )
        )
    odd.cmd("select shardman.create_hash_partitions(1, %s, %s, 6)", RELATION, KEY)
    reaches(odd, 0, 1, 2)
    for node in range(3):
        updated = f"update {RELATION} set {name(COLUMNS[2]).as_string(None)} = 7"
        as_user(odd, node, f"{updated} where {KEY} = {node + 1}")
    assert check(odd.dsns[2], data=True) == []


def test_copies_move_and_take_over(odd: Odd, tmp_path: Path) -> None:
    with odd.connect(0) as lord:
        home = dict(
            lord.execute(
                "select part_name, owner from shardman.partitions where prv is null"
            ).fetchall()
        )
    there = 3 - home[part(0)]
    odd.cmd("select shardman.move_part(%s, %s, %s)", part(0), there, home[part(0)])
    odd.cmd("select shardman.set_replevel(%s, 1)", RELATION)
    assert check(odd.dsns[1], data=True) == []
    eventually(
        "status finds nothing wrong",
        lambda: odd.shardman("status", "--json"),
        until=lambda said: '"problems": []' in said,
    )
    odd.shardman("exec", f"comment on table {RELATION} is 'found by any name'")
    odd.shardman("dump", str(tmp_path / "dump"), node=2)
    odd.servers.kill_node(2)
    reaches(odd, 0, 1)
    odd.servers.start_node(2)
    assert check(odd.dsns[1], data=True, patience=60) == []
    reaches(odd, 0, 1, 2)
