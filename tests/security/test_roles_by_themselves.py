"""A role that was the same everywhere stays so when the lord's is changed, and gets no powers by it."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from shardman.lord.watchers.roles import LOOK_EVERY_S
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

NODES = (0, 1, 2, 3)
ANNA = 'Anna "ö".B'
BEATS = count(100)


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    cluster.sql(1, "create table acc (id int primary key)")
    done = cluster.cmd("select shardman.create_hash_partitions(1, 'acc', 'id', 3)")
    assert done.status == "success", done
    for node in NODES:
        cluster.sql(node, "create role staff; create role twin login password 't'")
    cluster.sql(0, 'create role "Anna ""ö"".B" login password \'a\' in role staff')
    assert cluster.cmd("select shardman.sync_roles(role => %s)", (ANNA,)).status == "done"
    cluster.sql(0, "create role beat login password 'b'")
    assert cluster.cmd("select shardman.sync_roles(role => 'beat')").status == "done"
    cluster.sql(0, 'grant select on acc to beat, "Anna ""ö"".B", twin')
    # Nothing tells that a look has found them the same.
    time.sleep(3 * LOOK_EVERY_S)
    change(cluster, 0, "set work_mem = '5MB'")
    eventually("it is everywhere", lambda: settings(cluster) == ["5MB"] * 4, seconds=60)
    return cluster


def change(cluster: Cluster, node: int, what: str, role: str = ANNA) -> None:
    name = psycopg.sql.Identifier(role)
    cluster.sql(node, psycopg.sql.SQL("alter role {} " + what).format(name))  # type: ignore[arg-type]


def role(cluster: Cluster, node: int, name: str = ANNA) -> dict[str, Any]:
    asked = "select shardman.role_text(oid) from pg_roles where rolname = %s"
    found: dict[str, Any] = cluster.value(node, asked, (name,))
    return found


def settings(cluster: Cluster) -> list[str | None]:
    return [
        next((s["value"] for s in role(cluster, n)["settings"] if s["name"] == "work_mem"), None)
        for n in NODES
    ]


def everywhere(cluster: Cluster) -> bool:
    return all(role(cluster, n) == role(cluster, 0) for n in NODES)


def looked(cluster: Cluster) -> None:
    """What was changed before was looked at: what was changed after it has come through."""
    change(cluster, 0, f"connection limit {next(BEATS)}", "beat")
    eventually(
        "another role has come through",
        lambda: all(role(cluster, n, "beat") == role(cluster, 0, "beat") for n in NODES),
    )


def test_a_changed_password_is_everywhere(acc: Cluster) -> None:
    change(acc, 0, "password 'new' connection limit 9 valid until '2040-01-01'")
    acc.sql(0, 'revoke staff from "Anna ""ö"".B"')
    eventually("all have it", lambda: everywhere(acc))
    with psycopg.connect(make_conninfo(acc.dsn(3), user=ANNA, password="new")) as anna:
        assert anna.execute("select count(*) from acc").fetchone() == (0,)
    assert role(acc, 3)["groups"] == {}


def test_what_is_not_known_to_be_one_role_is_left_alone(acc: Cluster) -> None:
    # Made on each server by itself: the same name, and for all that is known another one.
    change(acc, 0, "password 'stolen'", "twin")
    # A change on a worker goes nowhere, nor does one on both.
    change(acc, 2, "set work_mem = '6MB'")
    looked(acc)
    assert settings(acc) == ["5MB", "5MB", "6MB", "5MB"]
    change(acc, 0, "set work_mem = '7MB'")
    looked(acc)
    assert settings(acc) == ["7MB", "5MB", "6MB", "5MB"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(make_conninfo(acc.dsn(3), user="twin", password="stolen"))
    # The administrator says which is right.
    assert acc.cmd("select shardman.sync_roles(role => %s)", (ANNA,)).status == "done"
    assert everywhere(acc)


def test_nobody_gets_powers(acc: Cluster) -> None:
    looked(acc)
    for what in (
        "createdb createrole replication bypassrls connection limit 5",
        "set session_replication_role = 'replica'",
        "set shardman.made_up = 'x'",
    ):
        change(acc, 0, what)
    acc.sql(0, 'grant staff to "Anna ""ö"".B"')
    limit = "select rolconnlimit from pg_roles where rolname = %s"
    eventually("it was looked at", lambda: all(acc.value(n, limit, (ANNA,)) == 5 for n in NODES))
    looked(acc)
    for node in NODES[1:]:
        there = role(acc, node)
        assert not {"createdb", "createrole", "replication", "bypassrls"} & set(there["attributes"])
        assert there["groups"] == {}
        assert [s["name"] for s in there["settings"]] == ["work_mem"]
    assert acc.cmd("select shardman.sync_roles(role => %s)", (ANNA,)).status == "done"
    assert everywhere(acc)


def test_it_can_be_switched_off(acc: Cluster) -> None:
    looked(acc)
    acc.sql(0, "insert into shardman.settings values ('sync_roles', 'off')")
    change(acc, 0, "connection limit 4")
    time.sleep(3 * LOOK_EVERY_S)  # nothing is to come
    limit = "select rolconnlimit from pg_roles where rolname = %s"
    assert [acc.value(n, limit, (ANNA,)) for n in NODES] == [4, 5, 5, 5]
