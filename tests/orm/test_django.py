"""A Django project over the backend `shardman.django`: its key statements go straight to owners."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

TESTS = Path(__file__).parents[1]
SETTINGS = """
import json, os
SECRET_KEY = "x"
USE_TZ = True
TIME_ZONE = "Europe/Vienna"
INSTALLED_APPS = ["orm.bank.app.Bank"]
DATABASES = {"default": {
    "ENGINE": "shardman.django", "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True,
    **json.loads(os.environ["BANK_DATABASE"]),
}}
"""


def database(cluster: Cluster, *nodes: int) -> dict[str, object]:
    where = [conninfo_to_dict(cluster.dsn(n)) for n in nodes]
    return {
        "NAME": where[0]["dbname"],
        "USER": "bank",
        "PASSWORD": "s",
        "HOST": ",".join(str(w["host"]) for w in where),
        "PORT": ",".join(str(w["port"]) for w in where),
        "OPTIONS": {"options": "-c search_path=bank"},
        # The tests run on the cluster itself, with --keepdb.
        "TEST": {"NAME": where[0]["dbname"]},
    }


def manage(*command: str, fails: bool = False) -> str:
    done = subprocess.run(
        (sys.executable, "-m", "django", *command),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    said = done.stdout + done.stderr
    assert bool(done.returncode) == fails, said
    return said


def use(name: str) -> None:
    """A function of orm/bank/use.py, in a process of its own."""
    manage("shell", "--no-imports", "-c", f"from orm.bank import use; use.{name}()")


@pytest.fixture(scope="module")
def bank(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Made by the project's migrations as its own role, then sharded and shared."""
    where = tmp_path_factory.mktemp("site")
    (where / "bank_settings.py").write_text(SETTINGS)
    for node in (0, 1, 2, 3):
        cluster.sql(node, "create role bank login password 's' createdb")
    cluster.sql(1, "create schema bank authorization bank")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{where}{os.pathsep}{TESTS}")
        patch.setenv("DJANGO_SETTINGS_MODULE", "bank_settings")
        patch.setenv("BANK_DATABASE", json.dumps(database(cluster, 1)))
        manage("migrate", "bank", "0001")
        cluster.sql(0, "insert into shardman.settings values ('new_tables', 'shared')")
        for call in (
            "select shardman.create_hash_partitions(1, 'bank.bank_account', 'id', 6)",
            (
                "select shardman.create_hash_partitions(1, 'bank.bank_entry', 'account_id', 6,"
                " colocate_with => 'bank.bank_account')"
            ),
            "select shardman.create_shared_table('bank.bank_kind', 1)",
            "select shardman.create_shared_table('bank.django_migrations', 1)",
        ):
            done = cluster.cmd(call)  # type: ignore[arg-type]
            assert done.status == "success", done
        patch.setenv("BANK_DATABASE", json.dumps(database(cluster, 2, 3, 1)))
        eventually(
            "the role is on all nodes",
            lambda: all(_answers(cluster, n) for n in (1, 2, 3)),
            tolerate=psycopg.Error,
            seconds=60,
        )
        manage("migrate", "bank")
        yield cluster


def _answers(cluster: Cluster, node: int) -> bool:
    dsn = make_conninfo(cluster.dsn(node), user="bank", password="s")
    with psycopg.connect(dsn) as conn:
        query = b"select count(*) from bank.bank_account, bank.bank_entry, bank.bank_kind"
        return conn.execute(query).fetchone() is not None


def test_the_application(bank: Cluster) -> None:
    use("everything")
    assert check(bank.lord_dsn, data=True) == []


def test_migrations_backward_and_forward(bank: Cluster) -> None:
    column = (
        "select count(*) from information_schema.columns where table_schema = 'bank'"
        " and table_name in ('bank_account', 'bank_entry') and column_name = 'note'"
    )
    for target, count in (("0001", 0), ("0002", 2)):
        manage("migrate", "bank", target)
        for node in (1, 2, 3):
            eventually(
                "the columns are as the migration says",
                lambda node=node: bank.value(node, column),
                until=lambda n, count=count: n == count,
            )
    assert "No changes detected" in manage("makemigrations", "--check", "--dry-run")
    assert check(bank.lord_dsn, data=True) == []


def test_its_own_tests_run_on_the_cluster(bank: Cluster) -> None:
    said = manage("test", "orm.bank", "--keepdb", "--noinput")
    assert "Ran 3 tests" in said
    assert "OK" in said


def test_sequences_are_set_behind_the_rows_of_their_own_range(bank: Cluster) -> None:
    use("sequences")
    last = """
        select last_value = (select max(id) from bank.django_migrations, pg_sequence s
                              where s.seqrelid = 'bank.django_migrations_id_seq'::regclass
                                and id between seqmin and seqmax)
          from bank.django_migrations_id_seq"""
    assert bank.value(2, last)
    bank.sql(2, "delete from bank.django_migrations where app = 'none'")


def test_inspectdb_and_dbshell(bank: Cluster) -> None:
    models = manage("inspectdb")
    assert models.count("(models.Model)") == 4
    assert "class BankAccount" in models
    assert "managed = False" in models


def test_a_database_for_tests_is_a_plain_one_on_one_node(
    bank: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = database(bank, 2) | {"TEST": {"NAME": "bank_test"}, "OPTIONS": {}}
    monkeypatch.setenv("BANK_DATABASE", json.dumps(plain))
    assert "OK" in manage("test", "orm.bank.tests.Plain", "--noinput")
    assert bank.value(2, "select count(*) from pg_database where datname = 'bank_test'") == 0


def test_a_pool_is_refused(bank: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    pooled = database(bank, 2) | {"OPTIONS": {"pool": True}}
    monkeypatch.setenv("BANK_DATABASE", json.dumps(pooled))
    assert "CONN_MAX_AGE" in manage("showmigrations", fails=True)
