"""`shardman dump` and `shardman restore`: every row once, in a plain server and in another cluster."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from copies.dumps import database, run
from shardman.errors import UserError
from shardman.local import Programs
from shardman.nodes.dump import dump
from shardman.nodes.reach import Reach
from shardman.nodes.restore import restore
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory

TABLE = """
create table public."Odd, names" (
    "K" bigserial primary key, "only text" text not null default 'a,b' check (length("only text") < 90),
    twice int generated always as (length("only text") * 2) stored, at timestamptz);
create index "by at" on public."Odd, names" (at) where at is not null;
insert into public."Odd, names" ("only text", at)
select e'tab\\t newline\\n \\\\. ünï ' || g, case when g % 3 = 0 then now() end from generate_series(1, 500) g;
create table public.pairs (id int primary key, side text not null, amount int not null);
insert into public.pairs select g, 'ab', 100 from generate_series(1, 40) g
"""
ODD = 'select "K", "only text", twice, at from "Odd, names" order by 1'
PAIRS = "select * from pairs order by 1"


@pytest.fixture(scope="module")
def cluster(module_cluster_factory: ClusterFactory) -> Cluster:
    made = module_cluster_factory(workers=2)
    with made.connect(1) as conn:
        conn.execute(TABLE.encode())
    for name, key in (('"Odd, names"', '"K"'), ("pairs", "id")):
        query = "select shardman.create_hash_partitions(1, %s, %s, 4)"
        done = made.cmd(query, (name, key))
        assert done.status in ("success", "done"), done
    return made


def all_rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as conn:
        conn.execute("set timezone = 'UTC'")
        return conn.execute(query.encode()).fetchall()


def write_dump(cluster: Cluster, directory: Path, tables: list[str] | None = None) -> bool:
    with Reach(cluster.dsn(2)) as reach:
        return dump(reach, directory, tables, print)


def test_one_plain_server_gets_every_row(
    cluster: Cluster, tmp_path: Path, pg_programs: Programs
) -> None:
    target = tmp_path / "dump"
    assert write_dump(cluster, target)
    with database(cluster.dsn(1), "plain") as plain:
        run(pg_programs, "psql", "-X", "-q", "--dbname", plain, "-f", str(target / "load.sql"))
        for query in (ODD, PAIRS):
            assert all_rows(plain, query) == all_rows(cluster.dsn(1), query) != []
        with psycopg.connect(plain, autocommit=True) as conn:
            conn.execute("""insert into "Odd, names" ("only text") values ('next')""")
            indexes = "select count(*) from pg_indexes where schemaname = 'public'"
            assert conn.execute(indexes).fetchone() == (3,)
    with pytest.raises(UserError, match="not empty"):
        write_dump(cluster, target)
    with pytest.raises(UserError, match="no sharded table"):
        write_dump(cluster, tmp_path / "none", ["nothing"])


def test_one_picture_while_transactions_write_on_two_nodes(
    cluster: Cluster, tmp_path: Path
) -> None:
    ids = {
        node: cluster.value(
            node,
            "select min(id) from pairs where tableoid::regclass::text ~ '_data$'",
        )
        for node in (1, 2)
    }
    stop = threading.Event()

    def transfer() -> None:
        with cluster.connect(1, autocommit=False) as conn:
            while not stop.wait(0.01):
                for sign, node in ((-1, 1), (1, 2)):
                    change = "update pairs set amount = amount + %s where id = %s"
                    conn.execute(change, (sign, ids[node]))
                conn.commit()

    writer = threading.Thread(target=transfer)
    writer.start()
    try:
        target = tmp_path / "dump"
        assert write_dump(cluster, target, ["pairs"])
    finally:
        stop.set()
        writer.join()
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
    with Reach(other.dsn(0)) as reach:
        assert restore(reach, target, print) == 540
        with pytest.raises(UserError, match="already"):
            restore(reach, target, print)
    for query in (ODD, PAIRS):
        assert all_rows(other.dsn(2), query) == all_rows(cluster.dsn(1), query)
    for node in (1, 2):
        other.sql(node, """insert into "Odd, names" ("only text") values ('next')""")
