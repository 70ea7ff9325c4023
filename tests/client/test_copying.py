"""Rows by files into the cluster and out of it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.parquet
import pytest

import shardman
from cli.conftest import run
from client.tables import bob, usage
from schema.bob import NODES, as_bob, ok
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

SCHEMA = """
create table acc (id int primary key, n int not null check (n >= 0), v text,
                  made text generated always as (v || '!') stored);
create table kinds (b bigint, t varchar(5), u uuid, d date, m numeric(10,2), z timestamptz, c char(3), f float8,
                    o boolean, primary key (b, t, u, d, m, z, c, f, o));
create table numbered (id bigint generated always as identity primary key, v text);
create table "Ä.b"."T""1" ("K 1" text primary key, "größe,2" int[], j jsonb);
create table codes (id int primary key, v text);
create table lone (id int, v text);
"""
COMMANDS = [
    "select shardman.create_hash_partitions(1, 'app.acc', 'id', 6)",
    "select shardman.create_hash_partitions(1, 'app.kinds', 'b,t,u,d,m,z,c,f,o', 5)",
    "select shardman.create_hash_partitions(1, 'app.numbered', 'id', 3)",
    """select shardman.create_hash_partitions(1, '"Ä.b"."T""1"', '"K 1"', 3)""",
    "select shardman.create_shared_table('app.codes', 1)",
]


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    """Tables of many kinds, owned by an ordinary role."""
    for node in NODES:
        cluster.sql(
            node,
            "create role bob login password 'b'; create schema app authorization bob;"
            ' create schema "Ä.b" authorization bob',
        )
    with as_bob(cluster, 1) as one:
        one.execute(SCHEMA.encode())
    for query in COMMANDS:
        ok(cluster, query)
    eventually("bob is let in", lambda: all(usage(cluster, n) for n in NODES))
    return cluster


@pytest.fixture
def db(nodes: Cluster) -> Iterator[shardman.Connection]:
    with shardman.connect(bob(nodes, 2)) as db:
        for table in ("acc", "numbered", "codes"):
            db.execute(f"delete from {table}")
        db.commit()
        yield db
        db.rollback()


def all_of(db: shardman.Connection, query: str) -> Any:
    """Through the node, as any driver sees it."""
    rows = db.execute(query).fetchall()
    db.rollback()
    return rows


def owners(db: shardman.Connection, table: str) -> set[str]:
    parts = db.router.picture.named["app", table].parts
    return {p.node for p in parts}


def test_csv_goes_straight_to_three_nodes(db: shardman.Connection, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'n,v,id\n1,"x, ""y""",1\n2,,2\n3,"",3\n4,"two\nlines",4\n'
        + "".join(f"5,é{i},{i}\n" for i in range(5, 3000))
    )
    seen: list[Any] = []
    loaded = db.copy_from("acc", path, progress=seen.append)
    assert (loaded.rows, loaded.through, len(owners(db, "acc"))) == (2999, "", 3)
    assert (seen[-1].rows, seen[-1].size) == (2999, path.stat().st_size)
    first = all_of(db, "select id, n, v, made from acc where id < 6 order by id")
    assert first == [
        (1, 1, 'x, "y"', 'x, "y"!'),
        (2, 2, None, None),
        (3, 3, "", "!"),
        (4, 4, "two\nlines", "two\nlines!"),
        (5, 5, "é5", "é5!"),
    ]
    assert all_of(db, "select count(*), sum(n) from acc") == [(2999, 10 + 5 * 2995)]


def test_a_row_that_is_longer_than_what_is_read_at_once(db: shardman.Connection) -> None:
    text = "id,n,v\n1,1,a\n2,1," + "y" * 3_000_000 + "\n"
    with pytest.raises(psycopg.DataError, match="give more with block_bytes"):
        db.copy_from("acc", io.StringIO(text))
    assert db.copy_from("acc", io.StringIO(text), block_bytes=1 << 22).rows == 2
    assert all_of(db, "select sum(length(v)) from acc") == [(3_000_001,)]


def test_it_is_a_part_of_the_transaction_that_is_open(db: shardman.Connection) -> None:
    with suppress(ZeroDivisionError), db.transaction():
        db.copy_from("acc", [(i, i, None) for i in range(100)], columns=("id", "n", "v"))
        raise ZeroDivisionError
    assert all_of(db, "select count(*) from acc") == [(0,)]
    db.execute("insert into acc values (1000, 1)")
    db.copy_from("acc", [(i, i, None) for i in range(100)], columns=("id", "n", "v"))
    db.commit()
    assert all_of(db, "select count(*) from acc") == [(101,)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("7,1,b\n", "duplicate key"),
        ("x,1,b\n", "invalid input syntax"),
        ("8,-1,b\n", "violates check"),
        (",1,b\n", "null value"),
        ("8,1\n", "2"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_there(
    db: shardman.Connection, wrong: str, said: str
) -> None:
    text = "id,n,v\n" + "".join(f'{i},1,"a\nb"\n' for i in range(500)) + wrong
    with pytest.raises(psycopg.Error, match=said) as raised:
        db.copy_from("acc", io.StringIO(text))
    if said != "2":
        assert raised.value.row == 501  # type: ignore[attr-defined]
    assert "501" in str(raised.value.__notes__ if said != "2" else raised.value)
    assert all_of(db, "select count(*) from acc") == [(0,)]


def test_bad_rows_are_put_aside(db: shardman.Connection, tmp_path: Path) -> None:
    rows = [f"{i},1,a" for i in range(300)]
    rows[10:10] = ["7,7,again", 'x,1,"a\nb"', "1", "900,-5,c"]
    (tmp_path / "a.csv").write_text("id,n,v\n" + "\n".join(rows) + "\n")
    aside = tmp_path / "aside.csv"
    loaded = db.copy_from("acc", tmp_path / "a.csv", rejects=aside)
    assert (loaded.rows, loaded.rejected) == (300, 4)
    found = pd.read_csv(aside).sort_values("row")
    assert found["row"].tolist() == [11, 12, 13, 14]
    kept = pd.read_csv(aside)["row"].tolist()
    assert all_of(db, "select count(*), min(n) from acc") == [(300, 1)]
    # Which of the four is told depends on which node is the last to answer.
    with pytest.raises((psycopg.IntegrityError, psycopg.DataError)):
        db.copy_from("acc", tmp_path / "a.csv", rejects=aside, max_rejects=3)
    # What was there stays.
    assert pd.read_csv(aside)["row"].tolist()[:4] == kept


def test_batches_stay_and_it_goes_on_behind_them(
    db: shardman.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardman.client.loading.sources._ROWS", 100)
    rows = [f"{i},1,a" for i in range(1000)]
    path = tmp_path / "a.csv"
    path.write_text("id,n,v\n" + "\n".join([*rows[:750], "x,1,a", *rows[751:]]) + "\n")
    with pytest.raises(psycopg.DataError, match="x") as raised:
        db.copy_from("acc", path, batch_rows=200)
    assert "skip=600" in raised.value.__notes__[-1]
    assert all_of(db, "select count(*) from acc") == [(600,)]
    path.write_text("id,n,v\n" + "\n".join(rows) + "\n")
    assert db.copy_from("acc", path, batch_rows=200, skip=600).rows == 400
    assert all_of(db, "select count(*) from acc") == [(1000,)]


def test_keys_of_every_kind(db: shardman.Connection, nodes: Cluster) -> None:
    """Each row is where a query on its key looks for it, however the key is written."""
    text = (
        "b;t;u;d;m;z;c;f;o\n"
        '1;"a";6c1b0bd7-57d8-4e5d-9d24-6a7d3d1c2f50;2026-02-03;1.50;2026-01-01 10:00+02;x ;1e2;t\n'
        ' 2 ;é;{6C1B0BD757D84E5D9D246A7D3D1C2F50};"Feb 4, 2026";1.499;yesterday;abc;-0;no\n'
        '-9223372036854775808;;00000000-0000-0000-0000-000000000000;infinity;-0;epoch;"";NaN;1\n'.replace(
            ";;0", ';"";0'
        )
    )
    loaded = db.copy_from("kinds", io.BytesIO(text.encode()), delimiter=";")
    assert (loaded.rows, loaded.through) == (3, "")
    for part in db.router.picture.named["app", "kinds"].parts:
        node = 2 if part.node == "here" else int(part.node.rpartition("_")[2])
        number = part.plain.rpartition("_")[2]
        place = f"'app.kinds'::regclass, 5, {number}, b, t, u, d, m, z, c, f, o"
        query = f"select count(*) from {part.data} where not satisfies_hash_partition({place})"
        assert nodes.value(node, query.encode()) == 0
    assert all_of(db, "select count(*), count(distinct u) from kinds") == [(3, 2)]


def test_keys_that_are_not_given_have_their_defaults(db: shardman.Connection) -> None:
    assert db.copy_from("numbered", io.BytesIO(b"v\n" + b"x\n" * 500)).through == ""
    assert all_of(db, "select count(*), count(distinct id) from numbered") == [(500, 500)]
    with pytest.raises(psycopg.errors.NotNullViolation, match='no column "id"'):
        db.copy_from("acc", io.BytesIO(b"n\n1\n"))


def test_odd_names_arrays_and_json(db: shardman.Connection, tmp_path: Path) -> None:
    rows: list[Any] = [('a"b', [1, None], psycopg.types.json.Jsonb({"x": "é"})), ("\\.", [], None)]
    assert db.copy_from('"Ä.b"."T""1"', rows).through == ""
    path = tmp_path / "out.csv.gz"
    assert db.copy_to('"Ä.b"."T""1"', path).rows == 2
    text = gzip.decompress(path.read_bytes()).decode()
    first, *others = csv.reader(io.StringIO(text))
    assert first == ["K 1", "größe,2", "j"]
    assert sorted(others) == [["\\.", "{}", ""], ['a"b', "{1,NULL}", '{"x": "é"}']]
    db.execute('delete from "Ä.b"."T""1"')
    db.commit()
    assert db.copy_from('"Ä.b"."T""1"', path).rows == 2
    assert all_of(db, 'select "größe,2" from "Ä.b"."T""1" order by 1') == [([],), ([1, None],)]


def test_odd_sources(db: shardman.Connection, tmp_path: Path) -> None:
    assert db.copy_from("acc", iter([{"n": 1, "id": 5}, {"id": 6, "n": 2, "v": "x"}])).rows == 2
    assert all_of(db, "select id, n, v from acc order by id") == [(5, 1, None), (6, 2, None)]
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(b"id,n\n" + b"1,2\n" * 100000)[:-20])
    returns = tmp_path / "returns.csv"
    returns.write_bytes(b"id,n\r1,2\r")
    for source, said in (
        ([{"id": 7, "n": 1}, {"id": 8}], "has no 'n': each gives all of id, n"),
        (pd.DataFrame({"id": [7, 8], "v": ["a", 5]}), "the DataFrame cannot be read"),
        (cut, "cut.csv.gz cannot be read: Truncated"),
        (returns, r"returns.csv cannot be read: its lines end with \\r alone"),
    ):
        with pytest.raises(psycopg.errors.BadCopyFileFormat, match=said):
            db.copy_from("acc", source)
    assert all_of(db, "select count(*) from acc") == [(2,)]


def test_shared_and_plain_tables_go_through_the_node(
    db: shardman.Connection, nodes: Cluster
) -> None:
    assert "shared" in db.copy_from("codes", [(1, "a"), (2, "b")]).through
    assert [nodes.value(n, "select count(*) from app.codes") for n in (1, 2, 3)] == [2, 2, 2]
    with shardman.connect(bob(nodes, 1)) as one:
        assert "no sharded" in one.copy_from("lone", [(1, "a")]).through
        assert one.execute("select * from lone").fetchall() == [(1, "a")]


def test_frames_and_parquet_and_back(db: shardman.Connection, tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": range(1000), "n": range(1000), "v": ["a", None] * 500})
    assert db.copy_from("acc", frame).rows == 1000
    path = tmp_path / "out.parquet"
    assert db.copy_to("acc", path, columns=["id", "v"]).rows == 1000
    table = pa.parquet.read_table(path)
    assert table.schema.types == [pa.int32(), pa.string()]
    assert table.sort_by("id").to_pydict() == {"id": list(range(1000)), "v": ["a", None] * 500}
    db.execute("delete from acc")
    db.commit()
    with pytest.raises(psycopg.errors.NotNullViolation) as raised:
        db.copy_from("acc", path)
    assert raised.value.row >= 1  # type: ignore[attr-defined]
    assert db.copy_from("acc", table.append_column("n", table["id"])).rows == 1000


def test_written_out_within_a_transaction(db: shardman.Connection) -> None:
    with db.transaction():
        assert db.copy_to("acc", io.BytesIO()).rows == 0
        db.execute("insert into acc values (1, 1)")
        out = io.BytesIO()
        assert db.copy_to("acc", out, columns=["id"], header=False).rows == 1
        assert out.getvalue() == b"1\n"
    assert all_of(db, "select count(*) from acc") == [(1,)]


def test_types_of_parquet(db: shardman.Connection, tmp_path: Path) -> None:
    columns = "s smallint, f float8, o bool, d date, m numeric(6,2), x timestamp(3), z timestamptz"
    db.execute(f"create temporary table kept ({columns}, b bytea)")
    values = "1, 'NaN', true, '2026-02-03', 1.5, '2026-01-01 10:00:00.5', '2026-01-01 10:00+02'"
    db.execute(f"insert into kept values ({values}, '\\x00')")
    db.execute("insert into kept default values")
    db.commit()
    db.copy_to("kept", tmp_path / "a.parquet")
    first, second = pa.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert first.pop("f") != 0
    assert first == {
        "s": 1,
        "o": True,
        "d": date(2026, 2, 3),
        "m": Decimal("1.50"),
        "x": datetime.fromisoformat("2026-01-01 10:00:00.500"),
        "z": datetime(2026, 1, 1, 8, tzinfo=UTC),
        "b": "\\x00",
    }
    assert set(second.values()) == {None}
    db.execute("insert into kept (d) values ('infinity')")
    with pytest.raises(psycopg.DataError, match="Parquet cannot hold"):
        db.copy_to("kept", tmp_path / "a.parquet")
    assert pa.parquet.read_table(tmp_path / "a.parquet").num_rows == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_a_partition_that_has_moved(db: shardman.Connection, nodes: Cluster) -> None:
    """What is known of its place is old: nothing is lost, and nothing is there by half."""
    db.copy_from("acc", [(i, 1, None) for i in range(50)], columns=["id", "n", "v"])
    places = (
        "select owner from shardman.partitions where relation = 'app.acc' and part_name ~ '_0$'"
    )
    other = next(n for n in (1, 2, 3) if n != nodes.value(0, places))

    def rows() -> Iterator[tuple[Any, ...]]:
        yield from ((i, 1, None) for i in range(50, 40_000))

    assert nodes.cmd(f"select shardman.move_part('app.acc_0', {other})").status == "success"
    for _ in range(2):
        try:
            db.copy_from("acc", rows(), columns=["id", "n", "v"])
            break
        except psycopg.errors.SerializationFailure:
            assert all_of(db, "select count(*) from acc") == [(50,)]
    assert all_of(db, "select count(*) from acc") == [(40_000,)]


def test_a_dead_node(db: shardman.Connection, nodes: Cluster) -> None:
    """It dies while rows are on their way: an error, and nothing of them."""

    def rows() -> Iterator[tuple[Any, ...]]:
        yield from ((i, 1, None) for i in range(40_000))
        nodes.kill_node(3)
        yield from ((i, 1, None) for i in range(40_000, 120_000))

    try:
        with pytest.raises(psycopg.OperationalError) as raised:
            db.copy_from("acc", rows(), columns=["id", "n", "v"])
        assert "node 3" in str(raised.value.__notes__)
    finally:
        nodes.start_node(3)
    eventually(
        "it serves again",
        lambda: all_of(db, "select count(*) from acc") == [(0,)],
        tolerate=psycopg.Error,
    )


def test_the_program(nodes: Cluster, db: shardman.Connection, tmp_path: Path) -> None:
    dsn = bob(nodes, 1)
    path = tmp_path / "a.csv"
    path.write_text("1;2;x\n2;3;\n")
    said = run(
        "copy", "acc", str(path), "--no-header", "--columns", "id,n,v", "--delimiter", ";", dsn=dsn
    )
    assert (said.code, said.out) == (0, "Loaded 2 rows.\n")
    said = run(
        "copy", "acc", str(path), "--no-header", "--columns", "id,n,v", "--delimiter", ";", dsn=dsn
    )
    assert said.code == 1
    assert said.err.startswith("error: row ") and f"of {path}, " in said.err
    assert ": duplicate key" in said.err and "Nothing was loaded" in said.err
    said = run(
        "copy", "acc", "--to", str(tmp_path / "b.csv"), "--columns", "id,v", "--json", dsn=dsn
    )
    assert json.loads(said.out)["rows"] == 2
    assert sorted((tmp_path / "b.csv").read_text().splitlines()) == ['"id","v"', "1,x", "2,"]
    for wrong, why in (
        (("copy", "acc", str(tmp_path / "none.csv")), "No such file"),
        (("copy", "nothing", str(path)), "there is no table nothing"),
        (("copy", "acc", str(path)), 'a column "1;2;x"'),
        (("copy", "acc", str(path), "--delimiter", "ab"), "delimiter"),
        (("copy", "acc", str(path), "--encoding", "nope"), "nope"),
    ):
        said = run(*wrong, dsn=dsn)
        assert said.code == 1 and why in said.err and "Traceback" not in said.err, said
    assert run("copy", "acc", dsn=dsn).code == 2
