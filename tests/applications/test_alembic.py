"""A project with SQLAlchemy and Alembic moves in, and pandas writes: every node shows what one server shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import conninfo

from applications.ledger.models import Base
from applications.ledger.sharded import PARTS, filters
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

TESTS = Path(__file__).parents[1]
FILL = """
insert into ledger.account (email) select 'a' || i from generate_series(1, 10) i;
insert into ledger.kind (name) values ('k');
insert into ledger.entry (account_id, kind_id, amount, note)
  select 1 + i % 10, 1, i, 'n' || i from generate_series(1, 200) i;
"""
#: The plain server is a database beside the lord's.
PLAIN = 0


def url(cluster: Cluster, node: int) -> sa.URL:
    where = conninfo.conninfo_to_dict(cluster.dsn(node))
    database = "ledger_plain" if node == PLAIN else str(where["dbname"])
    return sa.URL.create(
        "postgresql+psycopg", "ledger", "s", str(where["host"]), int(str(where["port"])), database
    )


def alembic(cluster: Cluster, node: int, *command: str) -> None:
    env = os.environ | {
        "LEDGER_URL": url(cluster, node).render_as_string(hide_password=False),
        "PYTHONPATH": str(TESTS),
    }
    ini = TESTS / "applications" / "ledger" / "alembic.ini"
    program = (sys.executable, "-m", "alembic", "-c", str(ini), *command)
    done = subprocess.run(
        program, env=env, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def ledger(cluster: Cluster) -> Cluster:
    for node in (0, 1, 2, 3):
        cluster.sql(node, "create role ledger login password 's'")
        cluster.sql(node, "alter role ledger set search_path = ledger")
    cluster.sql(0, "create database ledger_plain")
    plain = conninfo.make_conninfo(cluster.dsn(0), dbname="ledger_plain")
    with psycopg.connect(plain, autocommit=True) as session:
        session.execute("create schema ledger authorization ledger")
    cluster.sql(1, "create schema ledger authorization ledger")
    for node in (PLAIN, 1):
        alembic(cluster, node, "upgrade", "0001")
    cluster.sql(1, FILL)
    program = str(Path(sys.executable).parent / "shardman")
    wish = ("--shard", "ledger.entry=id", "--partitions", "4", "--apply", "--yes")
    done = subprocess.run(
        (program, "distribute", "--dsn", cluster.dsn(1), *wish),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done
    assert cluster.cmd("select shardman.set_replevel('ledger.entry', 1)").status == "done"
    cluster.sql(0, "insert into shardman.settings values ('new_tables', 'shared')")
    return cluster


def shown(cluster: Cluster, node: int) -> dict[str, Any]:
    """What SQLAlchemy finds in the catalogs, but for numbers of sequences, and foreign keys of the sharded."""
    found: dict[str, Any] = {}
    with sa.create_engine(url(cluster, node)).connect() as connection:
        parts = set(connection.scalars(sa.text(PARTS)))
        seen = sa.inspect(connection)
        found["enums"], found["sequences"] = seen.get_enums(), sorted(seen.get_sequence_names())
        for table in sorted({*seen.get_table_names()} - parts):
            found[table] = [
                [
                    {**c, "type": repr(c["type"]), "identity": "identity" in c}
                    for c in seen.get_columns(table)
                ],
                seen.get_pk_constraint(table),
                [] if table in ("entry", "posting") else seen.get_foreign_keys(table),
                sorted(map(str, seen.get_unique_constraints(table))),
                sorted(map(str, seen.get_indexes(table))),
                sorted(map(str, seen.get_check_constraints(table))),
                seen.get_table_comment(table),
            ]
    return found


def same_everywhere(cluster: Cluster) -> None:
    eventually("new tables are shared", lambda: not cluster.commands_left(), seconds=60)
    plain = shown(cluster, PLAIN)
    for node in (1, 2, 3):
        here = shown(cluster, node)
        assert here == plain, {k: (here.get(k), v) for k, v in plain.items() if here.get(k) != v}


def test_autogenerate_proposes_nothing(ledger: Cluster) -> None:
    same_everywhere(ledger)
    for node in (1, 2, 3):
        with sa.create_engine(url(ledger, node)).connect() as connection:
            options: dict[str, Any] = {
                "compare_type": True,
                "compare_server_default": True,
                **filters(connection),
            }
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, Base.metadata) == []


def test_it_is_migrated_on_one_node_and_back_on_another(ledger: Cluster) -> None:
    for node in (PLAIN, 2):
        alembic(ledger, node, "upgrade", "0002")
    same_everywhere(ledger)
    assert {ledger.value(n, "select count(place) from ledger.posting") for n in (1, 2, 3)} == {100}
    for node in (PLAIN, 3):
        alembic(ledger, node, "downgrade", "0001")
    same_everywhere(ledger)
    assert check(ledger.lord_dsn, data=True, patience=30) == []


def test_pandas(ledger: Cluster) -> None:
    frame = pd.DataFrame({"id": range(5), "name": [f"x{i}" for i in range(5)]})
    for node in (1, 2, 3):
        engine = sa.create_engine(url(ledger, node))
        more = frame.assign(id=frame.id + 100 * node, name=frame.name + str(node))
        more.to_sql("kind", engine, if_exists="append", index=False)
        with pytest.raises(ValueError, match="already exists"):
            frame.to_sql("kind", engine, if_exists="fail", index=False)
        # A table to which others refer is not dropped, as on any server; test_made_again.py has the others.
        with pytest.raises(sa.exc.DBAPIError, match="refer"):
            frame.to_sql("kind", engine, if_exists="replace", index=False)
        assert pd.read_sql("select count(*) as n from entry", engine).n[0] == 200
    assert {ledger.value(n, "select count(*) from ledger.kind") for n in (1, 2, 3)} == {16}
