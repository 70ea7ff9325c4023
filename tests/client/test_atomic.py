"""CALL shardman.atomic(…): statements on several nodes, all or none, for drivers that cannot route."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from client.tables import accounts, bob
from client.test_transactions import PARTS
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

CALL = "call shardman.atomic(%s, null)"
TOTAL = "select sum(n) from app.acc"


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    accounts(cluster)
    for node in (1, 2, 3):
        cluster.sql(node, "set shardman.ddl = 'here'; create extension dblink")
    return cluster


@pytest.fixture
def conn(nodes: Cluster) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(bob(nodes, 1), autocommit=True) as conn:
        yield conn
    assert total(nodes) == 1800
    eventually("nothing is left prepared", lambda: prepared(nodes) == 0)


def prepared(nodes: Cluster) -> int:
    return sum(int(nodes.value(n, PARTS)) for n in (1, 2, 3))


def total(nodes: Cluster) -> int:
    return int(nodes.value(1, TOTAL))


def key_on(nodes: Cluster, node: int) -> int:
    find = (
        "select k from generate_series(1, 60) k, shardman.partition_of('app.acc', k) p where p.node = %s"
        " order by k desc limit 1"
    )
    return int(nodes.value(1, find, (node,)))


def add(key: int, amount: int) -> dict[str, Any]:
    text = "update acc set n = n + $1::int where id = $2::int"
    return {"table": "app.acc", "key": key, "sql": text, "params": [amount, key], "rows": 1}


def pay(source: int, dest: int, amount: int) -> str:
    return json.dumps([add(source, -amount), add(dest, amount)])


def amounts(nodes: Cluster, *keys: int) -> list[int]:
    rows = nodes.sql(1, "select n from app.acc where id = any (%s) order by id", (list(keys),))
    return [n for (n,) in rows]


def test_all_of_it_is_done(nodes: Cluster, conn: psycopg.Connection[Any]) -> None:
    one, two, three = (key_on(nodes, n) for n in (1, 2, 3))
    for source, dest in ((one, two), (two, three), (three, one), (one, one)):
        assert conn.execute(CALL, (pay(source, dest, 4),)).fetchone() == ([1, 1],)
    everywhere = [add(k, 1) for k in (one, two, three)] + [add(one, -3)]
    assert conn.execute(CALL, (json.dumps(everywhere),)).fetchone() == ([1, 1, 1, 1],)
    assert sorted(amounts(nodes, one, two, three)) == [28, 31, 31]
    assert conn.execute(CALL, (pay(two, one, 1),)).fetchone() == ([1, 1],)
    assert conn.execute(CALL, (pay(three, one, 1),)).fetchone() == ([1, 1],)
    sessions = (
        "select count(*) from pg_stat_activity where application_name like 'postgres_fdw from 1%'"
    )
    assert nodes.value(2, sessions + " and state like 'idle in transaction%'") == 0


def test_or_nothing(nodes: Cluster, conn: psycopg.Connection[Any]) -> None:
    one, two = key_on(nodes, 1), key_on(nodes, 2)
    before = amounts(nodes, one, two)
    for steps, error in (
        (pay(one, two, 1000), errors.CheckViolation),
        (json.dumps([add(one, 1), add(two, -1000)]), errors.CheckViolation),
        (pay(one, 10**6, 4), psycopg.Error),
        (json.dumps([add(two, -4), {**add(one, 4), "sql": "nonsense"}]), errors.SyntaxError),
        (
            json.dumps([add(one, -4), add(two, 4), {"sql": "select 1"}]),
            errors.InvalidParameterValue,
        ),
        ("{}", errors.InvalidParameterValue),
    ):
        with pytest.raises(error):
            conn.execute(CALL, (steps,))
        assert (amounts(nodes, one, two), prepared(nodes)) == (before, 0)
    with pytest.raises(errors.InvalidTransactionTermination), conn.transaction():
        conn.execute(CALL, (pay(one, two, 4),))
    assert (amounts(nodes, one, two), prepared(nodes)) == (before, 0)


def test_what_a_session_leaves_is_ended_as_it_was_decided(
    nodes: Cluster, conn: psycopg.Connection[Any]
) -> None:
    two, three = key_on(nodes, 2), key_on(nodes, 3)
    before = amounts(nodes, two, three)
    steps = json.dumps([add(two, -4), add(three, 4)])
    # The procedure's first half, decided on, without its second.
    conn.execute("begin")
    conn.execute("select shardman.begin_atomic(%s, 'app')", (steps,))
    assert prepared(nodes) == 2
    conn.execute("commit")
    eventually("the shardlord commits it", lambda: prepared(nodes) == 0, seconds=20)
    after = [before[0] - 4, before[1] + 4] if two < three else [before[0] + 4, before[1] - 4]
    assert amounts(nodes, two, three) == after
    # Killed when one part is prepared, and the next one not.
    with psycopg.connect(nodes.dsn(3)) as blocker:
        blocker.execute("lock table shardman.client_transactions in exclusive mode")
        dying = psycopg.connect(bob(nodes, 1), autocommit=True)
        thread = threading.Thread(target=_call, args=(dying, steps))
        thread.start()
        eventually("a part is prepared", lambda: nodes.value(2, PARTS) == 1)
        nodes.sql(1, "select pg_terminate_backend(%s)", (dying.info.backend_pid,))
        thread.join()
    eventually("the shardlord rolls it back", lambda: prepared(nodes) == 0, seconds=20)
    assert amounts(nodes, two, three) == after
    conn.execute(CALL, (json.dumps([add(three, -4), add(two, 4)]),))


def test_it_is_cancelled_while_another_node_waits(
    nodes: Cluster, conn: psycopg.Connection[Any]
) -> None:
    one, two = key_on(nodes, 1), key_on(nodes, 2)
    with psycopg.connect(nodes.dsn(2)) as blocker:
        blocker.execute("select from app.acc where id = %s for update", (two,))
        conn.execute("set statement_timeout = '500ms'")
        begun = time.monotonic()
        with pytest.raises(errors.QueryCanceled):
            conn.execute(CALL, (pay(one, two, 4),))
        assert time.monotonic() - begun < 5


def test_a_deadlock_over_nodes_is_found(nodes: Cluster, conn: psycopg.Connection[Any]) -> None:
    one, two = key_on(nodes, 1), key_on(nodes, 2)
    pause = {"table": "app.acc", "key": one, "sql": "select pg_sleep(0.5)"}
    answers: list[str] = []
    with psycopg.connect(bob(nodes, 3), autocommit=True) as other:
        threads = [
            threading.Thread(target=lambda c=c, s=s: answers.append(_call(c, s)))
            for c, s in (
                (conn, json.dumps([add(one, -1), pause, add(two, 1)])),
                (other, json.dumps([add(two, -1), pause, add(one, 1)])),
            )
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(answers) in (["00000", "40P01"], ["00000", "57014"])


def _call(conn: psycopg.Connection[Any], steps: str) -> str:
    try:
        conn.execute(CALL, (steps,))
    except psycopg.Error as error:
        return str(error.sqlstate)
    return "00000"


def test_what_is_missing_is_said(nodes: Cluster, conn: psycopg.Connection[Any]) -> None:
    nodes.sql(1, "set shardman.ddl = 'here'; drop extension dblink")
    try:
        with pytest.raises(errors.FeatureNotSupported, match="needs the extension dblink") as told:
            conn.execute(CALL, (pay(key_on(nodes, 1), key_on(nodes, 2), 1),))
        assert "create extension dblink" in (told.value.diag.message_hint or "")
    finally:
        nodes.sql(1, "set shardman.ddl = 'here'; create extension dblink")
