"""`shardman dump` and `shardman restore`: every row once, in a plain server and in another cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import shardman
from copies.dumps import database, run
from shardman.errors import UserError
from shardman.local import Programs
from shardman.nodes.dump import Picture, dump
from shardman.nodes.invariants import check
from shardman.nodes.reach import Reach
from shardman.nodes.restore import restore
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory

#: What tables use is in no dump of them.
NEEDED = """
create schema "So";
create function "So".counted() returns trigger language plpgsql as $$
begin new.at := '2020-01-01 00:00+00'; return new; end $$;
"""
TABLE = """
create table public."Odd, names" (
    "K" bigserial primary key, "only text" text not null default 'a,b' check (length("only text") < 90),
    twice int generated always as (length("only text") * 2) stored, at timestamptz);
create index "by at" on public."Odd, names" (at) where at is not null;
insert into public."Odd, names" ("only text", at)
select e'tab\\t newline\\n \\\\. ünï ' || g, case when g % 3 = 0 then now() end from generate_series(1, 500) g;
create table public.pairs (id int primary key, side text not null, amount int not null);
insert into public.pairs select g, 'ab', 100 from generate_series(1, 40) g;
create table "So"."Land" (code text primary key, boss int, n int generated always as identity unique);
create table "So".town (
    id serial primary key, land text not null constraint "lies in" references "So"."Land", at timestamptz);
comment on constraint "lies in" on "So".town is 'where; it is';
create index on "So".town (at);
insert into "So"."Land" (code, boss) select 'c;' || g, g from generate_series(1, 5) g;
insert into "So".town (land) select 'c;' || 1 + g % 5 from generate_series(1, 30) g;
create trigger counts before insert on "So".town for each row execute function "So".counted();
alter table public.pairs add column land text references "So"."Land";
update public.pairs set land = 'c;3' where id < 9
"""
#: A circle, which tables that are shared can have afterwards.
CIRCLE = """alter table "So"."Land" add constraint rules foreign key (boss) references "So".town"""
LANDS = 'select code, boss, n from "So"."Land" order by 1'
TOWNS = 'select id, land, at from "So".town order by 1'
ODD = 'select "K", "only text", twice, at from "Odd, names" order by 1'
PAIRS = "select * from pairs order by 1"


@pytest.fixture(scope="module")
def cluster(module_cluster_factory: ClusterFactory) -> Cluster:
    made = module_cluster_factory(workers=2)
    with made.connect(1) as conn:
        conn.execute(NEEDED.encode())
        conn.execute(TABLE.encode())
    for name in ('"So"."Land"', '"So".town'):
        done = made.cmd("select shardman.create_shared_table(%s, 1)", (name,))
        assert done.status == "success", done
    made.sql(1, CIRCLE)
    for name, key in (('"Odd, names"', '"K"'), ("pairs", "id")):
        query = "select shardman.create_hash_partitions(1, %s, %s, 4)"
        done = made.cmd(query, (name, key))
        assert done.status in ("success", "done"), done
    return made


def all_rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as conn:
        conn.execute("set timezone = 'UTC'")
        return conn.execute(query.encode()).fetchall()


def write_dump(cluster: Cluster, directory: Path, tables: list[str] | None = None) -> Picture:
    with Reach(cluster.dsn(2)) as reach:
        return dump(reach, directory, tables, print)


def works(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    """Keys, foreign keys, sequences and triggers of the shared tables, and of those that refer to them."""
    new = """insert into "So".town (land) values ('c;1') returning id > 30, at is not null"""
    assert conn.execute(new).fetchone() == (True, True)
    assert conn.execute(
        """insert into "So"."Land" (code) values ('new') returning n > 5"""
    ).fetchone() == (True,)
    for wrong in (
        """insert into "So".town (land) values ('nowhere')""",
        """update "So"."Land" set boss = -1""",
        "update pairs set land = 'nowhere' where id = 1",
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            conn.execute(wrong.encode())


def test_one_plain_server_gets_every_row(
    cluster: Cluster, tmp_path: Path, pg_programs: Programs
) -> None:
    target = tmp_path / "dump"
    assert write_dump(cluster, target) is Picture.ALL
    with database(cluster.dsn(1), "plain") as plain:
        with psycopg.connect(plain) as conn:
            conn.execute(NEEDED.encode())
        run(pg_programs, "psql", "-X", "-q", "--dbname", plain, "-f", str(target / "load.sql"))
        for query in (ODD, PAIRS, LANDS, TOWNS):
            assert all_rows(plain, query) == all_rows(cluster.dsn(1), query) != []
        with psycopg.connect(plain, autocommit=True) as conn:
            conn.execute("""insert into "Odd, names" ("only text") values ('next')""")
            indexes = "select count(*) from pg_indexes where schemaname = 'public'"
            assert conn.execute(indexes).fetchone() == (3,)
            works(conn)
    with pytest.raises(UserError, match="not empty"):
        write_dump(cluster, target)
    with pytest.raises(UserError, match="no sharded table"):
        write_dump(cluster, tmp_path / "none", ["nothing"])


def test_one_picture_while_transactions_write_on_two_nodes(
    cluster: Cluster, tmp_path: Path
) -> None:
    ids = ids_of_two_nodes(cluster)
    with transfers(cluster.connect(1, autocommit=False), ids):
        target = tmp_path / "dump"
        assert write_dump(cluster, target, ["pairs"]) is Picture.ALL
    assert_whole(target)


def test_where_writers_leave_no_instant_commits_are_held(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardman.nodes.dump.TRIES", 1)
    ids = ids_of_two_nodes(cluster)
    with cluster.connect(1, autocommit=False) as holder:
        # It writes to a row of its own, and never commits.
        holder.execute("update pairs set amount = amount where id = (select max(id) from pairs)")
        with transfers(shardman.connect(cluster.dsn(2)), ids, pause_s=0):
            for n in range(8):
                target = tmp_path / str(n)
                assert write_dump(cluster, target, ["pairs"]) is Picture.CLIENTS
                assert_whole(target)
        assert '"whole": "clients"' in (target / "manifest.json").read_text()


def ids_of_two_nodes(cluster: Cluster) -> dict[int, int]:
    query = "select min(id) from pairs where tableoid::regclass::text ~ '_data$'"
    return {node: cluster.value(node, query) for node in (1, 2)}


@contextmanager
def transfers(conn: Any, ids: dict[int, int], pause_s: float = 0.01) -> Iterator[None]:
    """From a row of one node to one of another, all the time."""
    stop = threading.Event()

    def transfer() -> None:
        with conn:
            while not stop.wait(pause_s):
                for sign, node in ((-1, 1), (1, 2)):
                    change = "update pairs set amount = amount + %s where id = %s"
                    conn.execute(change, (sign, ids[node]))
                conn.commit()

    writer = threading.Thread(target=transfer)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def assert_whole(target: Path) -> None:
    rows = [
        line.split("\t")
        for file in target.glob("data/*.sql")
        for line in file.read_text().splitlines()[1:-1]
    ]
    assert len(rows) == 40
    assert sum(int(row[2]) for row in rows) == 4000


def test_another_cluster_gets_every_row(
    cluster: Cluster, cluster_factory: ClusterFactory, tmp_path: Path
) -> None:
    target = tmp_path / "dump"
    write_dump(cluster, target)
    other = cluster_factory(workers=2)
    other.sql(1, NEEDED)
    with Reach(other.dsn(0)) as reach:
        assert restore(reach, target, print) == 575
        with pytest.raises(UserError, match="already"):
            restore(reach, target, print)
    for query in (ODD, PAIRS, LANDS, TOWNS):
        assert all_rows(other.dsn(2), query) == all_rows(cluster.dsn(1), query)
    for node in (1, 2):
        other.sql(node, """insert into "Odd, names" ("only text") values ('next')""")
    assert other.sql(2, "select count(*) from shardman.shared_tables") == [(2,)]
    with other.connect(2) as conn:
        works(conn)
    assert all_rows(other.dsn(1), TOWNS) == all_rows(other.dsn(2), TOWNS)
    assert check(other.lord_dsn, data=True, patience=30) == []
