"""Statements over several partitions, in parts: effect, rows and errors are those of one server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

import shardman
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

TABLES = """
create table acc (id bigint primary key, v text, n int default 4 check (n < 1000), marks int[], doc jsonb);
create table "Pair %" (a int, "b c" text, v numeric not null, primary key (a, "b c"));
"""
ROWS = """
insert into acc select i, 'v' || i, i % 7, array[i], jsonb_build_object('i', i) from generate_series(1, 40) i;
insert into "Pair %" select i % 9, 'b' || i, i / 4.0 from generate_series(1, 40) i;
"""
TEXTS = "select v from acc where id = any(%s)"


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    cluster.sql(1, TABLES)  # type: ignore[arg-type]
    for call in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 6)",
        """select shardman.create_hash_partitions(1, '"Pair %"', 'a, "b c"', 5)""",
    ):
        done = cluster.cmd(call)  # type: ignore[arg-type]
        assert done.status == "success", done
    cluster.sql(1, ROWS)  # type: ignore[arg-type]
    text = (
        "set shardman.ddl = 'here'; create schema plain; set search_path = plain;" + TABLES + ROWS
    )
    cluster.sql(1, text)  # type: ignore[arg-type]
    for node in (1, 2, 3):
        eventually(
            "the routes",
            lambda node=node: cluster.value(node, 'select count(*) from "Pair %"') == 40,
        )
    return cluster


@pytest.fixture(scope="module")
def db(nodes: Cluster) -> Iterator[shardman.Connection]:
    with shardman.connect(nodes.dsn(2), autocommit=True) as db:
        yield db


@pytest.fixture(scope="module")
def plain(nodes: Cluster) -> Iterator[psycopg.Connection[Any]]:
    dsn = psycopg.conninfo.make_conninfo(nodes.dsn(1), options="-c search_path=plain")
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


Made = tuple[str, list[Any]]
IDS = st.integers(1, 60)


@st.composite
def inserts(draw: st.DrawFn) -> Made:
    """Rows for several partitions, as parameters and literals; some are wrong, some there already."""
    params: list[Any] = []

    def value(v: Any) -> str:
        if draw(st.booleans()):
            params.append(v)
            return "%s"
        text = v.replace("'", "''").replace("%", "%%") if isinstance(v, str) else str(v)
        return "null" if v is None else f"'{text}'" if isinstance(v, str) else f"({text})"

    ids = draw(st.lists(IDS, min_size=2, max_size=6))
    unnested = draw(st.integers(0, 3)) == 0
    numbers = st.one_of(
        st.integers(0, 30), st.none(), st.just(1000) if draw(st.booleans()) else st.just(1)
    )
    words = st.sampled_from(("it's", "(", "50% ), (", 'a"b', "ä--/*", "x"))
    rows = [f"({value(i)}, {value(draw(words))}, {value(draw(numbers))})" for i in ids]
    gap = draw(st.sampled_from((", ", ",", "\n , ")))
    text = f"insert into acc (id, v, n) {draw(st.sampled_from(('values', 'VALUES ')))} {gap.join(rows)}"
    if unnested:
        # As Django has it.
        text = "insert into acc (id, v, n) select * from unnest((%s)::int[], (%s)::varchar[], (%s)::int[])"
        params = [ids, [draw(words) for _ in ids], [draw(numbers) for _ in ids]]
    text += draw(
        st.sampled_from(
            (
                "",
                " on conflict (id) do update set v = excluded.v || acc.v, n = acc.n + 1",
                " on conflict (id) do update set n = excluded.n where acc.n > %s",
                " on conflict do nothing",
                " on conflict (id) do nothing",
            )
        )
    )
    params += [3] * text.count("acc.n > %s")
    text += draw(st.sampled_from(("", " returning *", " returning id, upper(v) as u")))
    return text, params


EVERYWHERE = (
    "update acc set n = n + 1, v = v || 'x'",
    "delete from acc;",
    "update acc set n = n / (n - 3) ",
)


@st.composite
def others(draw: st.DrawFn) -> Made:
    """About keys, by IN and ANY."""
    ids = draw(st.lists(IDS, min_size=1, max_size=7))
    how = draw(st.integers(0, 5))
    params: list[Any] = [ids]
    where = "id = any(%s)"
    if how == 1:
        where = f"id in ({', '.join(map(str, ids))})"
        params = []
    elif how == 2:
        where, params = f"id in ({', '.join(['%s'] * len(ids))})", list(ids)
    elif how == 3:
        where = "id = any(%s::bigint[])"
    elif how > 3:
        # All partitions.
        where = draw(
            st.sampled_from(("n > 2", "n = any(%s)", "v like 'v%%' and n <> 3", "n in (%s, 4)"))
        )
        params = [[1, 2, 6]] if "any" in where else [5] if "in (" in where else []
    if how < 4 and draw(st.booleans()):
        where += draw(st.sampled_from((" and n > 2", " and n = any(%s)", " and v like 'v%%'")))
        params += [[1, 2, 3, 4]] * where.count("n = any")
    divide = draw(st.sampled_from(("n", "n / (n - 3)")))
    text = draw(
        st.sampled_from(
            (
                f"update acc set n = {divide} + 1 where {where}",
                f"update acc a set v = v || '%%', n = n where {where} returning a.*",
                f"update acc set n = g from generate_series(5, 5) g where {where} returning acc.id, g",
                f"delete from acc where {where}",
                *([] if params else EVERYWHERE),
                f"delete from acc where {where} returning id, marks, doc",
                f"select * from acc where {where}",
                f"select id, {divide} as x from acc where {where}",
                f"select id, doc from acc where {where} for update",
                f"select id, n from acc where {where} order by n desc, id",
                f"select count(*), sum(n) from acc where {where}",
            )
        )
    )
    return text, params


def answer(conn: Any, made: Made, *, several: bool = False) -> Any:
    """Columns, rows and a count; and what is there then. Nothing stays.

    Or that there is an error: where several rows are wrong, it is not always the first one that is told.
    """
    text, params = made
    whole = text.startswith("insert") and " where " not in text and "nothing" not in text
    ordered = whole or "order by" in text
    try:
        with conn.transaction(force_rollback=True):
            if several:
                # Without keys it is split only in a transaction that is on several nodes.
                conn.execute("select from acc where id = any(%s) for update", (list(range(1, 20)),))
            cur = conn.execute(text, params)
            rows = list(map(repr, cur.fetchall())) if cur.description else []
            columns = [(c.name, c.type_code) for c in cur.description or ()]
            found = (columns, rows if ordered else sorted(rows), cur.rowcount, cur.statusmessage)
            there = conn.execute("select id, v, n from acc where id = any(%s)", (list(range(61)),))
            return found, sorted(map(repr, there.fetchall()))
    except (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.CardinalityViolation):
        return "error"


def same(db: shardman.Connection, plain: psycopg.Connection[Any], made: Made) -> bool:
    route = db.explain_route(*made)
    # Through a node these are not what one server gives: docs/weak-sides.md.
    if not route.asked and not route.straight and "on conflict (" in made[0]:
        return False
    several = route.split
    assert answer(db, made, several=several) == answer(plain, made, several=several), route
    return route.split


GENERATED = settings(
    max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@GENERATED
@given(made=inserts())
def test_rows(db: shardman.Connection, plain: psycopg.Connection[Any], made: Made) -> None:
    same(db, plain, made)


@GENERATED
@given(made=others())
def test_keys(db: shardman.Connection, plain: psycopg.Connection[Any], made: Made) -> None:
    same(db, plain, made)


def test_most_of_them_are_split(db: shardman.Connection) -> None:
    many = list(range(1, 41))
    for text, params in (
        ("insert into acc (id) values (%s), (%s), (93), (4), (5), (6) returning id", (91, 92)),
        (
            "insert into acc (id) values (%(a)s), (%(b)s), (7), (6), (5) on conflict (id) do nothing",
            {"a": 8, "b": 9},
        ),
        ("update acc set n = 1 where id = any(%s)", (many,)),
        ("insert into acc (id, n) select * from unnest(%s::bigint[], %s::int[])", (many, many)),
        ("delete from acc where id in (1, 2, 3, 4, 5, 6, 7, 8, 9)", None),
        ("update acc set n = n + %s where n > 3 returning id", (1,)),
        ("update acc set n = n + %s ; ", (1,)),
        ("delete from acc", None),
        ("select * from acc where id = any(%s)", (many,)),
        ('select * from "Pair %%" where a = 1 and "b c" = any(%s)', ([f"b{i}" for i in many],)),
    ):
        route = db.explain_route(text, params)
        assert route.split, route
        assert len(route.asked) > 1 < len(route.partitions), route
        assert "each node gets its part" in str(route)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("insert into acc (id, v) values (1, 'a\\b'), (2, ''), (3, ''), (4, '')", "an unusual way"),
        ("insert into acc (id) values (1), (2) /* a */, (3), (4)", "an unusual way"),
        (
            "insert into acc (id, n) values (1, (select 1)), (2, 2), (3, 3), (4, 4)",
            "a sub-select in it",
        ),
        ("with a as (select 1) update acc set n = 1 where id in (1, 2, 3, 4)", "WITH"),
        ("select count(*) over () from acc where id in (1, 2, 3, 4)", "it is not split"),
        ("update acc set v = now()::text", "now in it"),
        ("update acc set v = current_date::text where n > 1", "CURRENT_DATE"),
        ("delete from acc where v < 'today'", "may mean the time"),
        ("delete from acc where ctid = '(0,1)'", "PostgreSQL has for each table"),
        ("delete from acc -- all of it", "written in an unusual way"),
        ("delete from acc returning id", "written in an unusual way"),
        ("delete from acc where n > (select 3)", "a sub-select in it"),
        ("select max(doc::text) from acc where id in (1, 2, 3, 4)", "it is not split"),
        (
            "update acc a set n = b.n from acc b where a.id = b.id and a.id in (1, 2, 3, 4)",
            "another table",
        ),
    ],
)
def test_not_split(db: shardman.Connection, text: str, why: str) -> None:
    route = db.explain_route(text)
    assert not route.split
    assert not route.straight
    assert why in route.reason


def test_lists_of_different_lengths(db: shardman.Connection) -> None:
    text = "insert into acc (id, v) select * from unnest(%s::int[], %s::text[])"
    for ids, texts in (
        ([91, 92, 93, 94, 95], ["a"] * 6),
        ([91, 92, 93, 94, 95], ["a"] * 6 + ["b"]),
    ):
        assert not db.explain_route(text, (ids, texts)).split
        with pytest.raises(psycopg.errors.NotNullViolation):
            db.execute(text, (ids, texts))
    with db.transaction(force_rollback=True):
        cur = db.execute(f"{text} returning v, id", ([91, 92, 93, 94, 95], list("abcde")))
        assert cur.fetchall() == [("a", 91), ("b", 92), ("c", 93), ("d", 94), ("e", 95)]


def test_rows_are_answered_in_their_order(db: shardman.Connection) -> None:
    ids = [70, 61, 75, 63, 80, 62, 71, 90, 77]
    values = ", ".join(["(%s, 'x')"] * len(ids))
    with db.transaction(force_rollback=True):
        cur = db.execute(f"insert into acc (id, v) values {values} returning id", ids)
        assert (cur.rowcount, cur.statusmessage, cur.rownumber) == (9, "INSERT 0 9", 0)
        assert cur.fetchone() == (70,)
        assert cur.fetchmany(2) == [(61,), (75,)]
        cur.scroll(-1)
        assert [r for (r,) in cur] == ids[2:]
        assert cur.fetchone() is None
        again = db.cursor(row_factory=dict_row)
        again.execute(
            f"insert into acc (id, v) values {values}"
            " on conflict (id) do update set v = 'y' returning id, v",
            ids,
        )
        assert again.fetchall() == [{"id": i, "v": "y"} for i in ids]
        # The same cursor goes on with something else.
        assert again.execute("select v from acc where id = 70").fetchone() == {"v": "y"}
        assert again.execute("delete from acc where id = any(%s)", (ids,)).rowcount == 9
        with pytest.raises(psycopg.ProgrammingError, match="didn't produce"):
            again.fetchall()


def test_by_itself_it_is_all_or_nothing(db: shardman.Connection, nodes: Cluster) -> None:
    ids = list(range(101, 113))
    values = ", ".join(["(%s, 'x', %s)"] * len(ids))

    def insert(bad: int | None) -> int:
        params = [p for i in ids for p in (i, 1000 if i == bad else 1)]
        return db.execute(f"insert into acc (id, v, n) values {values}", params).rowcount

    for bad in ids:
        with pytest.raises(psycopg.errors.CheckViolation) as failed:
            insert(bad)
        assert failed.value.node.startswith("node ")  # type: ignore[attr-defined]
        assert db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert nodes.value(1, "select count(*) from acc where id > 100") == 0
    assert insert(None) == 12
    assert nodes.value(1, "select count(*) from acc where id > 100") == 12
    for node in (1, 2, 3):
        assert nodes.value(node, "select count(*) from pg_prepared_xacts") == 0
    assert db.execute("delete from acc where id = any(%s)", (ids,)).rowcount == 12


def test_as_a_part_of_a_transaction(nodes: Cluster) -> None:
    ids = list(range(120, 130))
    with shardman.connect(nodes.dsn(2)) as db:
        db.execute("insert into acc (id) values " + ", ".join(f"({i})" for i in ids))
        assert nodes.value(3, "select count(*) from acc where id >= 120") == 0
        assert len(db.execute("select id from acc where id = any(%s)", (ids,)).fetchall()) == 10
        with pytest.raises(psycopg.errors.DivisionByZero), db.transaction():
            db.execute("update acc set n = 1 / (id - 125) where id = any(%s)", (ids,))
        assert db.execute("select sum(n) from acc where id = any(%s)", (ids,)).fetchone() == (40,)
        db.commit()
        assert nodes.value(3, "select count(*) from acc where id >= 120") == 10
        # Outside of one a question about rows begins none.
        assert len(db.execute("select v from acc where id = any(%s)", (ids,)).fetchall()) == 10
        assert db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        db.execute("delete from acc where id = any(%s)", (ids,))


def test_without_transactions_over_nodes_it_goes_through_one(nodes: Cluster) -> None:
    with shardman.connect(nodes.dsn(2), autocommit=True, atomic=False) as db:
        text = "update acc set v = v where id = any(%s)"
        route = db.explain_route(text, (list(range(1, 20)),))
        assert not route.split
        assert "atomic=False" in route.reason
        assert db.execute(text, (list(range(1, 20)),)).rowcount == 19


def test_a_partition_that_has_moved(nodes: Cluster) -> None:
    keys = list(range(1, 20))
    upsert = "insert into acc (id, v) values " + ", ".join(f"({i}, 'm')" for i in range(1, 20))
    upsert += " on conflict (id) do update set v = 'm'"
    with (
        shardman.connect(nodes.dsn(2), autocommit=True, refresh_seconds=3600) as db,
        shardman.connect(nodes.dsn(2), autocommit=True, refresh_seconds=3600) as other,
    ):
        assert other.execute(upsert).rowcount == 19
        owner = nodes.value(1, "select owner from shardman.partitions where part_name = 'acc_2'")
        assert db.move_part("acc_2", owner % 3 + 1).ok
        eventually(
            "it is known on node 2",
            lambda: (
                (db.drive(db.router.refresh(now=True)), db.explain_route("select from acc_2"))
                and db.router.picture.named["public", "acc"].parts[2].node
                != other.router.picture.named["public", "acc"].parts[2].node
            ),
        )
        assert other.execute(upsert).rowcount == 19
        assert len(other.execute("select from acc where id = any(%s)", (keys,)).fetchall()) == 19
        mend = "update acc set v = 'v' || id where id = any(%s)"
        assert other.execute(mend, (list(range(1, 41)),)).rowcount == 40


def test_two_of_them_do_not_wait_for_each_other(nodes: Cluster) -> None:
    """The rows of one are those of the other, in another order of nodes and partitions."""
    ids = list(range(1, 41))
    failed: list[BaseException] = []

    def work(order: list[int]) -> None:
        try:
            with shardman.connect(nodes.dsn(1 + order[0] % 3), autocommit=True) as db:
                for _ in range(15):
                    db.execute("update acc set n = n where id = any(%s)", (order,))
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=work, args=(o,)) for o in (ids, ids[::-1], ids[20:] + ids[:20])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def test_rows_of_executemany(nodes: Cluster) -> None:
    ids = list(range(140, 160))
    with shardman.connect(nodes.dsn(2), autocommit=True) as db:
        cur = db.cursor()
        with pytest.raises(psycopg.errors.CheckViolation):
            cur.executemany("insert into acc (id, n) values (%s, %s)", [(i, i * 7) for i in ids])
        assert nodes.value(1, "select count(*) from acc where id >= 140") == 0
        cur.executemany(
            "insert into acc (id, n) values (%s, 1) on conflict (id) do update set n = 2",
            [(i,) for i in ids * 2],
        )
        assert cur.rowcount == 40
        assert nodes.value(1, "select sum(n) from acc where id >= 140") == 40
        cur.execute("delete from acc where id = any(%s)", (ids,))


def test_asynchronously(nodes: Cluster) -> None:
    async def use() -> None:
        async with await shardman.AsyncConnection.connect(nodes.dsn(2), autocommit=True) as db:
            cur = await db.execute(
                "select id, v from acc where id = any(%s)", (list(range(1, 20)),)
            )
            assert cur.rowcount == 19
            assert len(await cur.fetchmany(5)) == 5
            assert len([row async for row in cur]) == 14
            cur = await db.execute(
                "insert into acc (id) values (171), (172), (173), (174) returning id"
            )
            assert await cur.fetchall() == [(171,), (172,), (173,), (174,)]
            with pytest.raises(psycopg.errors.UniqueViolation):
                await db.execute(
                    "insert into acc (id) values (175), (172), (176), (177) returning id"
                )
            cur = await db.execute("delete from acc where id = any(%s)", (list(range(170, 180)),))
            assert cur.rowcount == 4

    asyncio.run(use())
