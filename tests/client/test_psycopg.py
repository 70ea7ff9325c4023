"""What programs rely on of psycopg, through the client."""

from __future__ import annotations

import pickle
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import ClientCursor, IsolationLevel, sql
from psycopg.adapt import Dumper, Loader
from psycopg.pq import TransactionStatus
from psycopg.rows import args_row, class_row, dict_row, kwargs_row, namedtuple_row, scalar_row
from psycopg.types import TypeInfo
from psycopg.types.json import Jsonb, set_json_loads

import shardman
from client import typed_program
from shardman.client.routing.picture import HERE
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

COUNT = 40


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    cluster.sql(1, "create table acc (id bigint primary key, v text, n int check (n < 1000))")
    done = cluster.cmd("select shardman.create_hash_partitions(1, 'acc', 'id', 6)")
    assert done.status == "success", done
    cluster.sql(1, f"insert into acc select i, 'v' || i, i from generate_series(1, {COUNT}) i")
    eventually(
        "the routes are there",
        lambda: all(cluster.value(n, "select count(*) from acc") == COUNT for n in (1, 2, 3)),
        tolerate=psycopg.Error,
    )
    return cluster


@pytest.fixture
def db(nodes: Cluster) -> Iterator[shardman.Connection]:
    with shardman.connect(nodes.dsn(2)) as db:
        yield db
        db.rollback()
        db.execute("delete from acc where id > %s", (COUNT,))
        db.execute("update acc set v = 'v' || id, n = id where v <> 'v' || id or n <> id")
        db.commit()


@pytest.fixture
def keys(db: shardman.Connection) -> dict[str, int]:
    """One of each node."""
    found: dict[str, int] = {}
    for key in range(1, COUNT + 1):
        found.setdefault(db.explain_route("select from acc where id = %s", (key,)).node, key)
    assert len(found) == 3
    return found


def value(db: Any, key: int) -> Any:
    row = db.execute("select v from acc where id = %s", (key,)).fetchone()
    return row[0] if row else None


# -- transactions -------------------------------------------------------------------------------


def test_the_state_of_a_transaction(db: shardman.Connection, keys: dict[str, int]) -> None:
    assert db.info.transaction_status == TransactionStatus.IDLE
    value(db, keys["node 3"])
    # The node that was connected to has no part of it.
    assert db.info.transaction_status == TransactionStatus.INTRANS
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.execute("select 1 / 0 from acc where id = %s", (keys["node 3"],))
    assert db.info.transaction_status == TransactionStatus.INERROR
    db.rollback()
    with db.transaction():
        assert db.info.transaction_status == TransactionStatus.INTRANS
    assert db.info.transaction_status == TransactionStatus.IDLE


def test_blocks(db: shardman.Connection, keys: dict[str, int]) -> None:
    key = keys["node 1"]
    with db.transaction():
        db.execute("update acc set v = 'a' where id = %s", (key,))
        with db.transaction() as _, pytest.raises(psycopg.ProgrammingError):
            db.commit()
        with db.transaction():
            db.execute("update acc set v = 'b' where id = %s", (key,))
            raise psycopg.Rollback
        assert value(db, key) == "a"
    with db.transaction(force_rollback=True):
        db.execute("update acc set v = 'c' where id = %s", (key,))
    assert value(db, key) == "a"


def test_rollbacks_of_an_outer_block(db: shardman.Connection, keys: dict[str, int]) -> None:
    one, three = keys["node 1"], keys["node 3"]
    with db.transaction("outer") as outer:
        assert outer.savepoint_name == "outer"
        with db.transaction():
            pass
        db.execute("update acc set v = 'a' where id = %s", (one,))
        with db.transaction() as middle:
            with db.transaction():
                db.execute("update acc set v = 'b' where id = %s", (three,))
                raise psycopg.Rollback(middle)
            pytest.fail("the block around it goes on")
        assert value(db, three) == f"v{three}"
        with db.transaction():
            raise psycopg.Rollback(outer)
        pytest.fail("the block around it goes on")
    assert value(db, one) == f"v{one}"


def test_savepoints_as_texts(db: shardman.Connection, keys: dict[str, int]) -> None:
    one, two, three = (keys[f"node {n}"] for n in (1, 2, 3))
    write = "update acc set v = %s where id = %s"
    db.execute("savepoint first")
    assert db.info.transaction_status == TransactionStatus.INTRANS
    db.execute(write, ("a", one))
    db.execute("savepoint second")
    db.execute("set local statement_timeout = '77s'")
    db.execute(write, ("a", two))
    assert len(db.router.parts()) == 2
    db.execute("rollback to second")
    # All that it did there is undone, so it is not in the transaction any more.
    assert len(db.router.parts()) == 1
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.execute("update acc set n = 1 / 0 where id = %s", (three,))
    db.execute("rollback to second")
    db.execute(write, ("b", three))
    db.execute("release savepoint first")
    db.commit()
    assert [value(db, k) for k in (one, two, three)] == ["a", f"v{two}", "b"]
    assert db.execute("show statement_timeout").fetchone() == ("0",)
    with pytest.raises(psycopg.errors.InvalidSavepointSpecification):
        db.execute("rollback to second")


@pytest.mark.parametrize("seed", range(6))
def test_savepoints_in_any_order(db: shardman.Connection, nodes: Cluster, seed: int) -> None:
    """Through the client and on one table of one node: the same statements, the same rows."""
    import random

    pick = random.Random(seed)
    with psycopg.connect(nodes.dsn(1)) as plain:
        plain.execute("create temp table acc as table acc")
        names: list[str] = []
        for step in range(60):
            text, args = _savepoint_step(pick, names, step)
            answers = []
            for conn in (db, plain):
                try:
                    answers.append(
                        conn.execute(text, args).rowcount if args else conn.execute(text) and 0
                    )
                except psycopg.Error as error:
                    answers.append(error.sqlstate)
            assert answers[0] == answers[1], (step, text, answers)
        if db.info.transaction_status == TransactionStatus.INERROR:
            db.rollback(), plain.rollback()
            return
        db.commit()
        rows = [sorted(c.execute("select id, v from acc").fetchall()) for c in (db, plain)]
        assert rows[0] == rows[1]


def _savepoint_step(pick: Any, names: list[str], step: int) -> tuple[Any, Any]:
    action = pick.choice(
        ["write"] * 5 + ["fail", "savepoint", "savepoint", "back", "back", "release"]
    )
    if action == "savepoint":
        names.append(pick.choice("abc"))
        return f"savepoint {names[-1]}", None
    if action in ("back", "release") and names:
        name = pick.choice(names)
        verb = "rollback to savepoint" if action == "back" else "release savepoint"
        return f"{verb} {name}", None
    key = pick.randint(1, COUNT)
    if action == "fail":
        return "update acc set v = (1 / 0)::text where id = %s", (key,)
    return "update acc set v = %s where id = %s", (f"s{step}", key)


def test_how_transactions_are(db: shardman.Connection, keys: dict[str, int]) -> None:
    db.isolation_level = IsolationLevel.REPEATABLE_READ
    db.read_only = True
    assert (db.isolation_level, db.read_only, db.deferrable) == (
        IsolationLevel.REPEATABLE_READ,
        True,
        None,
    )
    for key in keys.values():
        assert db.execute("show transaction_isolation").fetchone() == ("repeatable read",)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            db.execute("update acc set n = 1 where id = %s", (key,))
        db.rollback()
    value(db, keys["node 3"])
    for name in ("isolation_level", "read_only", "deferrable", "autocommit"):
        with pytest.raises(psycopg.ProgrammingError, match="can't change"):
            setattr(db, name, None)
    db.rollback()
    db.isolation_level = db.read_only = None
    db.autocommit = True
    db.execute("update acc set v = 'auto' where id = %s", (keys["node 3"],))
    db.autocommit = False
    db.rollback()
    assert value(db, keys["node 3"]) == "auto"


def test_two_phase_commit_on_one_node(db: shardman.Connection, nodes: Cluster) -> None:
    xid = db.xid(1, "gtrid", "bqual")
    db.tpc_begin(xid)
    db.execute("select 1")
    with pytest.raises(psycopg.ProgrammingError):
        db.commit()
    db.tpc_prepare()
    db.tpc_commit()
    db.tpc_begin("plain")
    db.execute("select 1")
    with pytest.raises(psycopg.ProgrammingError):
        db.rollback()
    db.tpc_prepare()
    with shardman.connect(nodes.dsn(2)) as other:
        assert "plain" in [x.gtrid or str(x) for x in other.tpc_recover()]
        other.rollback()
    db.tpc_rollback()
    assert db.execute("select 2").fetchone() == (2,)


def write_everywhere(db: shardman.Connection, keys: dict[str, int]) -> None:
    for key in keys.values():
        db.execute("update acc set v = 'w' where id = %s", (key,))
    assert len(db.router.parts()) == 3


def test_what_is_wrong_is_said_as_by_one_server(
    db: shardman.Connection, keys: dict[str, int], nodes: Cluster
) -> None:
    cluster_only = "select 1 from shardman.nothing"
    for text, state in (
        ("selct", "42601"),
        ("update acc set v = where id = 1", "42601"),
        (cluster_only, "42P01"),
        ("select nothing(%s)", "42883"),
        ("create temp tabel x (i int)", "42601"),
    ):
        write_everywhere(db, keys)
        with pytest.raises(psycopg.Error) as told:
            db.execute(text, (1,) if "%s" in text else None)
        assert told.value.sqlstate == state
        # It has failed, as on one server.
        assert db.info.transaction_status == TransactionStatus.INERROR
        db.rollback()
    write_everywhere(db, keys)
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        db.execute("create temp table x (i int)")
    assert db.info.transaction_status == TransactionStatus.INTRANS


def test_transactions_that_end_by_a_text(db: shardman.Connection, keys: dict[str, int]) -> None:
    write_everywhere(db, keys)
    db.execute("rollback")
    assert db.router.parts() == []
    assert [value(db, key) for key in keys.values()] == [f"v{key}" for key in keys.values()]
    write_everywhere(db, keys)
    db.execute("commit")
    db.rollback()
    assert {value(db, key) for key in keys.values()} == {"w"}


def test_how_blocks_are(db: shardman.Connection, keys: dict[str, int]) -> None:
    with db.transaction() as outer:
        assert isinstance(outer, psycopg.Transaction) and outer.connection is db
        with db.transaction() as inner:
            write_everywhere(db, keys)
            raise psycopg.Rollback
        with pytest.raises(ZeroDivisionError), db.transaction() as failed:
            raise ZeroDivisionError
        assert (outer.status, inner.status) == ("active", "rolled_back_explicitly")
        assert failed.status == "rolled_back_with_error"
    assert outer.status == "committed"


# -- cursors and rows ---------------------------------------------------------------------------


def test_many_with_rows(db: shardman.Connection, keys: dict[str, int]) -> None:
    write_everywhere(db, keys)
    three = list(keys.values())
    cur = db.cursor()
    query = "update acc set n = n + 1 where id = %s returning id"
    cur.executemany(query, [(k,) for k in three * 2], returning=True)
    found = [cur.fetchone()]
    while cur.nextset():
        assert cur.rowcount == 1
        found.append(cur.fetchone())
    assert found == [(k,) for k in three * 2]
    cur.executemany(query, [(k,) for k in three], returning=True)
    assert [c.fetchall() for c in cur.results()] == [[(k,)] for k in three]
    if hasattr(psycopg.Cursor, "set_result"):
        assert cur.set_result(-2).fetchone() == (three[1],)
        assert cur.set_result(0).fetchone() == (three[0],)
    cur.executemany(query, [])
    assert cur.rowcount == 0
    with pytest.raises(psycopg.errors.CheckViolation):
        cur.executemany(
            "update acc set n = 1000 where id = %s", [(k,) for k in three], returning=True
        )


def test_rows_of_cursors(db: shardman.Connection, keys: dict[str, int]) -> None:
    """`WHERE CURRENT OF`, on each node; and what a cursor is."""
    for key in keys.values():
        with db.cursor("here_is") as cur:
            assert isinstance(cur, psycopg.ServerCursor)
            cur.execute("select id from acc where id = %s for update", (key,))
            assert cur.fetchone() == (key,)
            db.execute("update acc set v = 'c' where current of here_is")
        assert value(db, key) == "c"
    assert len(db.router.parts()) == 3
    with pytest.raises(psycopg.errors.InvalidCursorName):
        db.execute("delete from acc where current of here_is")
    db.rollback()
    cur = db.cursor()
    assert isinstance(cur, psycopg.Cursor) and not isinstance(cur, psycopg.ServerCursor)
    cur.arraysize = 2
    cur.execute("select id from acc where id = any(%s) order by id", (sorted(keys.values()),))
    assert len(cur.fetchmany()) == 2
    assert next(cur) == (max(keys.values()),)
    with pytest.raises(StopIteration):
        next(cur)
    write_everywhere(db, keys)
    stream = cur.stream("select v from acc where id = %s", (keys["node 3"],))
    assert list(stream) == [("w",)]


def test_cursors(db: shardman.Connection, keys: dict[str, int]) -> None:
    with db.cursor() as cur:
        cur.execute("select id, v from acc where id = any(%s) order by id", ([1, 2, 3],))
        assert [c.name for c in cur.description or ()] == ["id", "v"]
        assert (cur.rowcount, cur.statusmessage) == (3, "SELECT 3")
        assert cur.fetchone() == (1, "v1")
        assert cur.fetchmany(1) == [(2, "v2")]
        cur.scroll(0, mode="absolute")
        assert [r[0] for r in cur] == [1, 2, 3]
        assert cur.fetchone() is None
    with pytest.raises(psycopg.InterfaceError, match="closed"):
        cur.execute("select 1")
    db.rollback()
    cur = db.cursor()
    cur.executemany("update acc set v = %s where id = %s", [("m", k) for k in keys.values()])
    assert cur.rowcount == 3
    assert len(db.router.parts()) == 3
    db.rollback()
    cur.executemany(
        "insert into acc (id, v) values (%s, 'r') returning id",
        [(k,) for k in (51, 52, 53)],
        returning=True,
    )
    found = [cur.fetchone()]
    while cur.nextset():
        found.append(cur.fetchone())
    assert found == [(51,), (52,), (53,)]


def test_binary(db: shardman.Connection, keys: dict[str, int]) -> None:
    for key in keys.values():
        query = "select id, 1.5::numeric, now() is not null, '{1,2}'::int[] from acc where id = %s"
        for cur in (
            db.execute(query, (key,), binary=True),
            db.cursor(binary=True).execute(query, (key,)),
        ):
            assert cur.pgresult.fformat(0) == psycopg.pq.Format.BINARY
            assert cur.fetchone() == (key, Decimal("1.5"), True, [1, 2])
    assert db.execute("select %b", (5,)).fetchone() == (5,)


def test_row_factories(db: shardman.Connection, keys: dict[str, int]) -> None:
    @dataclass
    class Row:
        id: int
        v: str

    key = keys["node 3"]
    query = "select id, v from acc where id = %s"
    expected = {
        dict_row: {"id": key, "v": f"v{key}"},
        namedtuple_row: (key, f"v{key}"),
        scalar_row: key,
        class_row(Row): Row(key, f"v{key}"),
        args_row(Row): Row(key, f"v{key}"),
        kwargs_row(Row): Row(key, f"v{key}"),
    }
    for factory, row in expected.items():
        assert db.cursor(row_factory=factory).execute(query, (key,)).fetchone() == row
        db.row_factory = factory
        assert db.execute(query, (key,)).fetchone() == row


def test_cursors_of_the_server(db: shardman.Connection, keys: dict[str, int]) -> None:
    for key in keys.values():
        with db.cursor("c", scrollable=True) as cur:
            cur.execute("select generate_series(1, 9), id from acc where id = %s", (key,))
            assert cur.fetchone() == (1, key)
            cur.scroll(3)
            assert cur.fetchmany(2) == [(5, key), (6, key)]
            cur.scroll(0, mode="absolute")
            cur.itersize = 2
            assert len(list(cur)) == 9
    db.rollback()
    with db.cursor("all") as cur:
        cur.execute("select id from acc order by id")
        assert len(cur.fetchall()) == COUNT
    db.commit()
    hold = db.cursor("hold", withhold=True)
    hold.execute("select id from acc where id = %s", (keys["node 1"],))
    db.commit()
    assert hold.fetchone() == (keys["node 1"],)
    hold.close()
    with pytest.raises(psycopg.NotSupportedError):
        db.cursor("many").executemany("select %s", [(1,)])


def test_client_cursors(nodes: Cluster, keys: dict[str, int]) -> None:
    with shardman.connect(nodes.dsn(2), cursor_factory=ClientCursor) as db:
        for key in keys.values():
            assert db.explain_route("select v from acc where id = %s", (key,)).straight
            assert value(db, key) == f"v{key}"
        assert db.cursor().mogrify("select %s, %s", (1, "it's")) == "select 1, 'it''s'"
        write_everywhere(db, keys)
        with pytest.raises(psycopg.errors.UndefinedColumn):
            db.execute("select nothing from acc where v <> %s", ("%",))
        assert db.info.transaction_status == TransactionStatus.INERROR
        db.rollback()


# -- adapters -----------------------------------------------------------------------------------


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class PointDumper(Dumper):
    def dump(self, obj: Point) -> bytes:
        return f"p{obj.x}".encode()


class Shout(Loader):
    def load(self, data: Any) -> str:
        return bytes(data).decode().upper()


def test_adapters_of_a_connection_are_on_all_nodes(nodes: Cluster, keys: dict[str, int]) -> None:
    with shardman.connect(nodes.dsn(2)) as db:
        db.adapters.register_dumper(Point, PointDumper)
        db.adapters.register_loader("text", Shout)
        for key in keys.values():
            query = "update acc set v = %s where id = %s returning v"
            assert db.execute(query, (Point(key), key)).fetchone() == (f"P{key}",)
        assert len(db.router.parts()) == 3
        db.rollback()


def test_adapters_that_come_later(db: shardman.Connection, keys: dict[str, int]) -> None:
    for key in keys.values():
        value(db, key)
    db.adapters.register_loader("text", Shout)
    assert [value(db, key) for key in keys.values()] == [f"V{key}" for key in keys.values()]
    db.rollback()
    # A session that is opened again has them too.
    db.router.sessions[HERE].pgconn.finish()
    assert value(db, 1) == "V1"
    db.rollback()

    class Odd(Dumper):
        oid = 20

        def dump(self, obj: int) -> bytes:
            return str(obj + 1).encode()

    db.adapters.register_dumper(int, Odd)
    assert value(db, 1) == "V2"


def test_types_of_the_server(db: shardman.Connection) -> None:
    info = TypeInfo.fetch(db, "int8")  # type: ignore[call-overload]
    assert info.array_oid == 1016 and TypeInfo.fetch(db, "nothing") is None  # type: ignore[call-overload]
    with psycopg.ClientCursor(db) as cur:  # type: ignore[arg-type]
        assert cur.mogrify("select %s", ("x",)) == "select 'x'"
        assert cur.execute("select count(*) from acc where id <= %s", (COUNT,)).fetchone() == (
            COUNT,
        )
    assert db.router.through


def test_adapters_of_a_cursor(db: shardman.Connection, keys: dict[str, int]) -> None:
    cur = db.cursor()
    cur.adapters.register_loader("text", Shout)
    for key in keys.values():
        query = "select v from acc where id = %s"
        assert cur.execute(query, (key,)).fetchone() == (f"V{key}",)
        assert value(db, key) == f"v{key}"

    class Odd(Dumper):
        def dump(self, obj: int) -> bytes:
            return str(obj + 1).encode()

    db.rollback()
    # It says another key than the client would see: so the server finds it.
    cur.adapters.register_dumper(int, Odd)
    assert cur.execute("select v from acc where id = %s", (1,)).fetchone() == ("V2",)


def test_adapters_of_all_connections(nodes: Cluster) -> None:
    adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
    set_json_loads(lambda data: ("mine", len(data)), adapters)
    adapters.register_loader("text", Shout)
    with shardman.connect(nodes.dsn(2), context=adapters) as db:
        assert value(db, 1) == "V1"
        assert db.execute("select '[1]'::jsonb").fetchone() == (("mine", 3),)
    with shardman.connect(nodes.dsn(2)) as db:
        given = {"a": [1, None]}
        assert db.execute("select %s::jsonb", (Jsonb(given),)).fetchone() == (given,)
        key = uuid.uuid4()
        assert db.execute("select %s::uuid, %s::numeric", (key, Decimal("1.10"))).fetchone() == (
            key,
            Decimal("1.10"),
        )


def test_sql_composed(db: shardman.Connection, keys: dict[str, int]) -> None:
    query = sql.SQL("select {} from {} where id = {}").format(
        sql.Identifier("v"), sql.Identifier("acc"), sql.Literal(keys["node 3"])
    )
    assert query.as_string(db).endswith(str(keys["node 3"]))
    assert db.explain_route(query).straight
    assert db.execute(query).fetchone() == (f"v{keys['node 3']}",)


# -- errors -------------------------------------------------------------------------------------


def test_errors(db: shardman.Connection, keys: dict[str, int]) -> None:
    for node, key in keys.items():
        with pytest.raises(psycopg.errors.UniqueViolation) as failed:
            db.execute("insert into acc (id) values (%s)", (key,))
        error = failed.value
        assert isinstance(error, psycopg.IntegrityError)
        assert error.sqlstate == "23505"
        assert error.diag.message_detail and str(key) in error.diag.message_detail
        assert error.node == node  # type: ignore[attr-defined]
        db.rollback()
        with pytest.raises(db.IntegrityError) as failed:
            db.execute("update acc set n = 1000 where id = %s", (key,))
        assert failed.value.diag.constraint_name == "acc_n_check"
        db.rollback()
    with pytest.raises(psycopg.errors.UndefinedTable):
        db.execute("select * from nothing")
    db.rollback()
    with pytest.raises(psycopg.ProgrammingError, match="placeholders"):
        db.execute("select v from acc where id = %s", (1, 2))
    db.rollback()
    with pytest.raises(psycopg.errors.SyntaxError):
        db.execute("selct")
    db.rollback()


def test_errors_name_the_table(db: shardman.Connection, keys: dict[str, int]) -> None:
    for key in keys.values():
        with pytest.raises(psycopg.errors.UniqueViolation) as told:
            db.execute("insert into acc (id) values (%s)", (key,))
        assert told.value.pgresult is not None
        for error in (told.value, pickle.loads(pickle.dumps(told.value))):
            diag = error.diag
            assert (diag.table_name, diag.constraint_name) == ("acc", "acc_pkey")
        db.rollback()
        with pytest.raises(psycopg.errors.CheckViolation) as told:
            db.execute("update acc set n = 1000 where id = %s", (key,))
        diag = told.value.diag
        assert (diag.table_name, diag.constraint_name) == ("acc", "acc_n_check")
        db.rollback()


def test_parameters_that_do_not_fit(db: shardman.Connection, keys: dict[str, int]) -> None:
    for key in keys.values():
        value(db, key)
    # What cannot be sent to any node is not refused as one that goes through a node.
    for params in ((1,), (1, 2, 3), {"a": 1}):
        with pytest.raises((psycopg.ProgrammingError, TypeError)) as told:
            db.execute("select v from acc where id = %s and n = %s", params)
        assert getattr(told.value, "sqlstate", None) is None


def test_closed_connections(nodes: Cluster) -> None:
    with shardman.connect(nodes.dsn(2)) as db:
        key = 1
        db.execute("update acc set v = 'closed' where id = %s", (key,))
    assert db.closed and not db.broken
    with pytest.raises(psycopg.OperationalError, match="closed"):
        db.execute("select 1")
    with pytest.raises(psycopg.OperationalError, match="closed"):
        value(db, key)
    with pytest.raises(psycopg.OperationalError, match="closed"):
        db.commit()
    db.close()
    with shardman.connect(nodes.dsn(2)) as db:
        assert value(db, key) == "closed"
        db.execute("update acc set v = 'v1' where id = %s", (key,))
    with pytest.raises(ZeroDivisionError), shardman.connect(nodes.dsn(2)) as db:  # noqa: PT012
        db.execute("update acc set v = 'never' where id = %s", (key,))
        raise ZeroDivisionError
    with shardman.connect(nodes.dsn(2)) as db:
        assert value(db, key) == "v1"
    with pytest.raises(psycopg.OperationalError):
        shardman.connect("host=127.0.0.1 port=1 connect_timeout=1")


# -- the protocol -------------------------------------------------------------------------------


def test_pipelines(db: shardman.Connection) -> None:
    with db.pipeline() as pipeline:
        curs = [db.execute("select v from acc where id = %s", (k,)) for k in range(1, 6)]
        pipeline.sync()
        assert [c.fetchone() for c in curs] == [(f"v{k}",) for k in range(1, 6)]
    db.rollback()
    with pytest.raises(psycopg.errors.DivisionByZero), db.pipeline():
        db.execute("select 1 / 0")
    db.rollback()
    assert db.execute("select 1").fetchone() == (1,)


def test_copy(db: shardman.Connection) -> None:
    cur = db.cursor()
    with cur.copy("copy acc (id, v) from stdin") as copy:
        for i in range(100, 110):
            copy.write_row((i, f"c{i}"))
    assert cur.rowcount == 10
    with cur.copy("copy (select id, v from acc where id >= 100 order by id) to stdout") as copy:
        assert [r[0] for r in copy.rows()] == [str(i) for i in range(100, 110)]
    with cur.copy("copy acc (id, v) from stdin (format binary)") as copy:
        copy.set_types(["int8", "text"])
        copy.write_row((200, "bin"))
    assert value(db, 200) == "bin"
    db.rollback()
    with pytest.raises(psycopg.errors.BadCopyFileFormat), cur.copy("copy acc from stdin") as copy:
        copy.write("1\n")
    db.rollback()
    assert value(db, 200) is None


def test_notices_and_notifications(db: shardman.Connection, nodes: Cluster) -> None:
    said: list[str | None] = []
    handler = lambda diag: said.append(diag.message_primary)  # noqa: E731
    db.add_notice_handler(handler)
    db.execute("do $$ begin raise notice 'hear'; end $$")
    db.remove_notice_handler(handler)
    db.execute("do $$ begin raise notice 'not'; end $$")
    assert said == ["hear"]
    db.commit()
    with shardman.connect(nodes.dsn(2), autocommit=True) as listener:
        listener.execute("listen news")
        heard: list[str] = []
        listener.add_notify_handler(lambda n: heard.append(n.payload))
        with psycopg.connect(nodes.dsn(2), autocommit=True) as speaker:
            speaker.execute("notify news, 'one'")
        eventually("it is heard", lambda: listener.execute("select 1") and heard)
        assert heard == ["one"]
    with shardman.connect(nodes.dsn(2), autocommit=True) as listener:
        listener.execute("listen news")
        with psycopg.connect(nodes.dsn(2), autocommit=True) as speaker:
            speaker.execute("notify news, 'two'")
        assert [n.payload for n in listener.notifies(timeout=10, stop_after=1)] == ["two"]


def test_a_cursor_is_closed_behind_its_session(nodes: Cluster) -> None:
    """Django does it while it handles the error that has ended the session."""
    for mode in (shardman.connect, psycopg.connect):
        db = mode(nodes.dsn(2))
        unused = db.cursor()
        nodes.sql(2, "select pg_terminate_backend(%s, 5000)", (db.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            db.execute("select 1")
        unused.close()


def test_a_new_session_hears_what_the_former_one_did(
    db: shardman.Connection, nodes: Cluster
) -> None:
    db.autocommit = True
    heard: list[str] = []
    db.add_notify_handler(lambda n: heard.append(n.payload))
    for text in ("listen news", "listen more", "unlisten more"):
        db.execute(text)
    nodes.sql(2, f"select pg_terminate_backend({db.info.backend_pid})")
    eventually(
        "it is connected again", lambda: value(db, 1) and not db.broken, tolerate=psycopg.Error
    )
    nodes.sql(2, "notify more, 'not'")
    nodes.sql(2, "notify news, 'again'")
    eventually("it is heard", lambda: db.execute("select 1") and heard)
    assert heard == ["again"]


@pytest.mark.parametrize("verb", ["cancel", "cancel_safe"])
def test_cancel(db: shardman.Connection, keys: dict[str, int], verb: str) -> None:
    value(db, keys["node 3"])
    db.rollback()

    def later() -> None:
        time.sleep(0.5)
        getattr(db, verb)()

    thread = threading.Thread(target=later)
    thread.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        db.execute("select pg_sleep(20)")
    thread.join()
    db.rollback()


def test_prepared_statements(db: shardman.Connection, keys: dict[str, int]) -> None:
    db.prepare_threshold = 2
    assert db.prepare_threshold == 2
    query = "select v from acc where id = %s"
    for _ in range(4):
        for key in keys.values():
            assert value(db, key) == f"v{key}"
    count = "select count(*) from pg_prepared_statements"
    for session in db.router.sessions.values():
        assert session.execute(count).fetchone()[0] >= 1
        session.rollback()
    for key in keys.values():
        assert db.execute(query, (key,), prepare=True).fetchone() == (f"v{key}",)
    db.rollback()
    value(db, keys["node 3"])
    db.execute("deallocate all")
    db.rollback()
    assert not db.router.pinned


def test_nothing_is_left_behind_discard_all(db: shardman.Connection, keys: dict[str, int]) -> None:
    db.autocommit = True
    query, key = "select v from acc where id = %s", keys["node 3"]
    db.execute("set work_mem = '5MB'")
    assert not db.explain_route(query, (key,)).straight
    db.execute("discard all")
    assert db.explain_route(query, (key,)).straight
    assert value(db, key) == f"v{key}"


async def test_asynchronous_ones(nodes: Cluster, keys: dict[str, int]) -> None:
    async with await shardman.AsyncConnection.connect(nodes.dsn(2)) as db:
        await db.execute("savepoint a")
        for key in keys.values():
            await db.execute("update acc set v = 'async' where id = %s", (key,))
        await db.execute("rollback to a")
        assert db.router.parts() == []
        async with db.cursor("named") as cur:
            await cur.execute("select id from acc where id = %s", (keys["node 3"],))
            assert await cur.fetchone() == (keys["node 3"],)
        cur = db.cursor()
        await cur.executemany("update acc set v = 'x' where id = %s", [(k,) for k in keys.values()])
        assert cur.rowcount == 3
        await db.rollback()
        assert (await TypeInfo.fetch(db, "int8")).array_oid == 1016  # type: ignore[call-overload]
        await db.rollback()
        await db.set_isolation_level(IsolationLevel.SERIALIZABLE)
        assert db.isolation_level == IsolationLevel.SERIALIZABLE
        await db.tpc_begin("async")
        await db.tpc_prepare()
        await db.tpc_rollback()


async def test_rows_have_the_types_that_are_said(nodes: Cluster) -> None:
    row, acc, named = (1, "v1"), typed_program.Acc(1, "v1"), {"id": 1, "v": "v1"}
    assert typed_program.run(nodes.dsn(2)) == [row, row, acc, [named], [row], named]
    assert await typed_program.run_async(nodes.dsn(2)) == [named, acc]
