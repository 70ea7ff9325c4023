"""What a DBA may set for a database disturbs neither commands nor routes nor failovers; what he sets by hand
on `synchronous_standby_names` is put right."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import psycopg
import pytest
from psycopg import sql

from shardman.nodes.invariants import check
from shardman.testing import eventually
from shardman.testing.cluster import Cluster, CommandResult
from shardman.testing.load import make_bank

SIZE = 300
#: So short that anything of ours which obeys them fails.
TIMEOUTS = (
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
)
ODD = {
    **dict.fromkeys(TIMEOUTS, "100ms"),
    "default_transaction_isolation": "serializable",
    "search_path": "nowhere",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "TimeZone": "Pacific/Chatham",
    "extra_float_digits": "-5",
    "default_transaction_read_only": "on",
}


@pytest.fixture(scope="module")
def odd(cluster: Cluster) -> Cluster:
    """A bank whose databases are set oddly when it is there."""
    make_bank(cluster, SIZE)
    for node in (0, *cluster.worker_dsns):
        with cluster.connect(node) as conn:
            there = {r[0] for r in conn.execute("select name from pg_settings")}
            for setting in there & ODD.keys():
                conn.execute(
                    sql.SQL("alter database {} set {} = {}").format(
                        sql.Identifier(conn.info.dbname), sql.Identifier(setting), ODD[setting]
                    )
                )
        # What was there before has the settings of before: it is made anew.
        cluster.sql(
            node,
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid()",
        )
    return cluster


def free(cluster: Cluster, node: int) -> psycopg.Connection[Any]:
    """A session of the application's that has set for itself what it needs."""
    conn = cluster.connect(node)
    conn.execute(
        "select set_config('default_transaction_read_only', 'off', false), count(set_config(name, '0', false))"
        " from unnest(%s::text[]) as name where current_setting(name, true) is not null",
        (list(TIMEOUTS),),
    )
    conn.execute("set search_path = public")
    conn.execute("set default_transaction_isolation = 'read committed'")
    return conn


def cmd(cluster: Cluster, query: str) -> CommandResult:
    """As Cluster.cmd."""
    with free(cluster, 0) as lord:
        (cmd_id,) = lord.execute(query.encode()).fetchone() or (None,)
        lord.execute("select shardman.cmd_wait(%s, '1 minute')", (cmd_id,))
        row = lord.execute(
            "select status::text, error, result from shardman.cmd_log where id = %s", (cmd_id,)
        ).fetchone()
    assert row is not None
    return CommandResult(*row)


def test_commands(odd: Cluster) -> None:
    done = cmd(odd, "select shardman.set_replevel('accounts', 1)")
    assert done.status == "done", done
    part, owner = odd.sql(
        0, "select part_name, owner from shardman.partitions where relation = 'marks' limit 1"
    )[0]
    dest = min(set(odd.worker_dsns) - {owner})
    # Submitted through a route.
    with free(odd, 2) as conn:
        conn.execute("select shardman.move_part(%s, %s)", (part, dest))
    eventually(
        "the partition is moved",
        lambda: odd.value(
            0, "select owner from shardman.partitions where part_name = %s and prv is null", (part,)
        ),
        until=lambda found: found == dest,
        after=lambda: odd.sql(0, "select * from shardman.cmd_log order by id desc limit 1"),
    )


def test_statements_over_nodes(odd: Cluster) -> None:
    """What a session has allowed itself holds on the other nodes, and its copies are fed."""
    with free(odd, 1) as conn, conn.transaction():
        conn.execute("update accounts set touched = touched + 1")
        conn.execute("select pg_sleep(0.3)")
        counted = conn.execute("select count(*) from accounts, pg_sleep(0.2) where touched = 1")
        assert counted.fetchone() == (SIZE,)


def test_a_transaction_that_takes_longer_to_apply_than_transactions_may(odd: Cluster) -> None:
    """Neither the apply worker nor the walsender is ended by what is set for the database."""
    part, src, dest = odd.sql(
        0,
        "select part_name, p.owner, r.owner"
        "  from shardman.partitions p join shardman.partitions r using (part_name)"
        " where p.relation = 'accounts' and p.prv is null and r.prv is not null limit 1",
    )[0]
    worker = "select shardman.apply_failures() -> %s"
    with free(odd, src) as source, free(odd, dest) as replica:
        before = replica.execute(worker, (str(src),)).fetchone()
        source.execute(
            f"do $$ begin for i in 1..200 loop update {part} set touched = touched + 1; end loop; end $$"
        )
        # How often it has failed, and its process.
        assert replica.execute(worker, (str(src),)).fetchone() == before


def test_status_and_check(odd: Cluster) -> None:
    assert check(odd.lord_dsn, data=True, patience=30) == []
    done = subprocess.run(
        [sys.executable, "-m", "shardman", "status", "--dsn", odd.lord_dsn],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("by_hand", ["", "FIRST 2 (nobody, {})"])
def test_standby_names_are_put_right(odd: Cluster, by_hand: str) -> None:
    """Whoever changes them by hand lets commits wait for nobody, or for ever, only for seconds."""
    show = "show synchronous_standby_names"
    node, right = next(
        (node, names) for node in odd.worker_dsns if (names := odd.value(node, show)) != ""
    )
    channel = right.split('"')[1]
    with free(odd, node) as conn:
        conn.execute(
            sql.SQL("alter system set synchronous_standby_names = {}").format(
                by_hand.format(f'"{channel}"')
            )
        )
        conn.execute("select pg_reload_conf()")
        conn.execute("update accounts set touched = touched + 1")
    eventually(
        "the standby names are put right",
        lambda: sorted(odd.value(node, show).split('"')[1::2]),
        until=lambda found: found == sorted(right.split('"')[1::2]),
        seconds=10,
    )
