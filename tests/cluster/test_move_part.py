"""move_part under load: no error, nothing lost or doubled, the first time."""

from __future__ import annotations

import time

import psycopg
import pytest
from psycopg import sql

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load
from shardman.testing.waiting import eventually

SIZE = 2000


@pytest.fixture(scope="module")
def bank(cluster: Cluster) -> Cluster:
    """Accounts and marks in twelve partitions each, spread over three workers."""
    cluster.sql(
        1,
        "create table accounts (id int primary key, balance bigint not null default 1000,"
        " touched bigint not null default 0, note text)",
    )
    cluster.sql(1, "create table marks (id bigint primary key)")
    cluster.sql(
        1,
        "insert into accounts select i, 1000, 0, repeat('x', 50) from generate_series(1, %s) i",
        (SIZE,),
    )
    for table in ("accounts", "marks"):
        done = cluster.cmd("select shardman.create_hash_partitions(1, %s, 'id', 12)", (table,))
        assert done.status == "success", done
    return cluster


def owner(cluster: Cluster, part: str) -> int:
    return int(
        cluster.value(0, "select owner from shardman.partitions where part_name = %s", (part,))
    )


def total(cluster: Cluster, node: int) -> tuple[int, int, int]:
    row = cluster.sql(node, "select count(*), sum(balance), sum(touched) from accounts")[0]
    return int(row[0]), int(row[1]), int(row[2])


def test_moves_under_load_lose_nothing_and_show_no_error(bank: Cluster) -> None:
    before = total(bank, 1)
    work = Bank("accounts", SIZE)
    dsns = list(bank.worker_dsns.values())
    moved = []
    with Load(
        dsns, [work.increment, work.read_then_write, work.transfer], workers=6, marks="marks"
    ) as load:
        time.sleep(0.5)
        for k in range(6):
            part = f"accounts_{k}"
            dest = owner(bank, part) % 3 + 1
            moved.append(bank.cmd("select shardman.move_part(%s, %s)", (part, dest)))
            assert owner(bank, part) == dest
    assert [m.status for m in moved] == ["success"] * 6, moved
    for each in moved:
        assert each.data is not None and each.data.keys() >= {
            "cut_over_ms",
            "tries",
            "rows",
            "bytes",
        }
        assert 0 < each.data["cut_over_ms"] < 10_000 and each.data["tries"] >= 1
        assert each.result is not None and each.result.startswith("Cut-over ")
    assert load.errors == []
    assert load.acknowledged > 100
    for node in (0, 1, 2, 3):
        count, balance, touched = total(bank, node)
        assert (count, balance) == before[:2]
        assert touched == before[2] + load.added
        found = [r[0] for r in bank.sql(node, "select id from marks order by id")]
        assert found == sorted(m for t in load.tallies for m in t.inserted)
    assert check(bank.lord_dsn, data=True) == []


def test_a_long_transaction_delays_the_move_and_nobody_else(bank: Cluster) -> None:
    src = owner(bank, "accounts_7")
    dest = src % 3 + 1
    account = bank.value(src, "select min(id) from accounts_7")
    with psycopg.connect(bank.dsn(src)) as holder:
        holder.execute("update accounts set touched = touched where id = %s", (account,))
        cmd = bank.submit("select shardman.move_part('accounts_7', %s)", (dest,))
        other = bank.value(src, "select max(id) from accounts_7")
        took = []
        said = ""
        begin = time.monotonic()
        while time.monotonic() < begin + 6 or (not said and time.monotonic() < begin + 60):
            begun = time.monotonic()
            bank.sql(dest, "update accounts set touched = touched where id = %s", (other,))
            took.append(time.monotonic() - begun)
            said = (
                bank.value(0, "select waits_for from shardman.cmd_log where id = %s", (cmd,))
                or said
            )
        assert f"pid {holder.info.backend_pid}" in said
        # One may be a standstill of the machine; behind a lock more would stand.
        assert sum(each > 1.0 for each in took) <= 1
        assert bank.wait(cmd, 0.1).status == "in progress"
        holder.commit()
    assert bank.wait(cmd, 30).status == "success"


def test_a_waiting_move_can_be_cancelled_and_leaves_nothing(bank: Cluster) -> None:
    src = owner(bank, "accounts_8")
    with psycopg.connect(bank.dsn(src)) as holder, psycopg.connect(bank.dsn(2)) as canceling:
        holder.execute("lock table accounts_8 in row exclusive mode")
        cmd = bank.submit("select shardman.move_part('accounts_8', %s)", (src % 3 + 1,))
        whom = "select waits_for from shardman.cmd_log where id = %s"
        eventually(
            "the move waits for the client",
            lambda: bank.value(0, whom, (cmd,)) or "",
            until=lambda said: "pid" in said,
            every=0.05,
        )
        touch = "update shardman.cmd_log set waits_for = 'somebody' where id = %s"
        # What this transaction asks it asks with a snapshot older than the next line of the journal.
        assert canceling.execute("select shardman.cancel_cmd(0)").fetchone() == (False,)
        bank.sql(0, touch, (cmd,))
        canceling.execute("select shardman.cancel_cmd(%s)", (cmd,))
        # Until it commits nobody has asked for anything, and nobody is held up.
        bank.sql(0, touch, (cmd,))
        canceling.commit()
        done, who = bank.wait(cmd, 20), bank.value(2, "select session_user")
        assert (done.status, done.result) == ("canceled", f"Canceled by {who}.")
    assert owner(bank, "accounts_8") == src
    assert check(bank.lord_dsn) == []


def test_a_table_without_primary_key_moves_with_a_warning(bank: Cluster) -> None:
    bank.sql(2, "create table logs (at int, line text)")
    bank.sql(2, "insert into logs select i, 'l' || i from generate_series(1, 500) i")
    assert (
        bank.cmd("select shardman.create_hash_partitions(2, 'logs', 'at', 3)").status == "success"
    )
    dest = owner(bank, "logs_0") % 3 + 1
    done = bank.cmd("select shardman.move_part('logs_0', %s)", (dest,))
    assert done.status == "success", done
    assert "no primary key" in (done.result or "")
    assert bank.value(3, "select count(*) from logs") == 500
    bank.sql(1, "delete from logs where at <= 100")
    assert bank.value(3, "select count(*) from logs") == 400
    assert check(bank.lord_dsn, data=True) == []


def test_an_old_copy_on_which_a_view_depends_stays_and_holds_nothing_up(bank: Cluster) -> None:
    part = "accounts_7"
    src = owner(bank, part)
    bank.sql(src, "create view rich as select id from accounts_7_data where balance > 0")
    there = bank.value(src, "select count(*) from rich")
    done = bank.cmd("select shardman.move_part(%s, %s)", (part, src % 3 + 1))
    assert done.status == "success", done
    assert "The old copy is left as accounts_7_aside_c" in (done.result or "")
    assert done.data is not None
    (kept,) = done.data["set_aside"]
    assert "view rich depends on" in (done.result or "")
    # Neither slot nor publication: an inactive slot would keep WAL until the disk is full.
    assert not bank.sql(src, "select slot_name from pg_replication_slots where not active")
    assert bank.value(src, "select count(*) from rich") == there
    bank.sql(src, "drop view rich")
    (aside,) = bank.sql(
        src, "select relname from pg_class where relname like 'accounts_7_aside_c%'"
    )
    assert kept == {"node_id": src, "table": aside[0]}
    bank.sql(src, sql.SQL("drop table {}").format(sql.Identifier(aside[0])))


def test_mistakes_are_said_plainly(bank: Cluster) -> None:
    src = owner(bank, "accounts_1")
    for args, code, words in [
        (("accounts_99", 1), "no_such_partition", "no partition accounts_99"),
        (("accounts_1", 77), "no_such_node", "no worker 77"),
        (("accounts_1", src), "copy_exists", "accounts_1 already. Choose another destination."),
    ]:
        done = bank.cmd("select shardman.move_part(%s, %s)", args)
        assert (done.status, done.code, done.data) == ("failed", code, None)
        assert words in (done.error or ""), done
    with pytest.raises(psycopg.Error, match="must not be null"):
        bank.sql(1, "select shardman.move_part(null, 1)")


def test_a_rolled_back_call_submits_nothing(bank: Cluster) -> None:
    before = bank.value(0, "select count(*) from shardman.cmd_log")
    with psycopg.connect(bank.dsn(2)) as worker:
        worker.execute("select shardman.move_part('accounts_1', 1)")
        worker.rollback()
    assert bank.value(0, "select count(*) from shardman.cmd_log") == before


def test_a_third_node_that_is_down_does_not_matter(bank: Cluster) -> None:
    part = "accounts_2"
    src = owner(bank, part)
    dest = src % 3 + 1
    third = ({1, 2, 3} - {src, dest}).pop()
    bank.stop_node(third, "immediate")
    try:
        done = bank.cmd("select shardman.move_part(%s, %s)", (part, dest))
        assert done.status == "success", done
        assert f"Node {third} could not be reached" in (done.result or "")
    finally:
        bank.start_node(third)
    expected = bank.value(dest, "select count(*) from accounts_2")
    assert bank.value(third, "select count(*) from accounts_2") == expected
    assert check(bank.lord_dsn, data=True) == []


def test_a_destination_that_is_down_fails_the_move_cleanly(bank: Cluster) -> None:
    part = "accounts_3"
    src = owner(bank, part)
    dest = src % 3 + 1
    bank.stop_node(dest, "immediate")
    try:
        done = bank.cmd("select shardman.move_part(%s, %s)", (part, dest))
        assert (done.status, done.code) == ("failed", "node_unreachable")
        assert "cannot be reached" in (done.error or "")
    finally:
        bank.start_node(dest)
    assert owner(bank, part) == src
    assert check(bank.lord_dsn, data=True) == []


def test_a_relation_with_the_name_of_the_route_is_told_before_anything_is_copied(
    bank: Cluster,
) -> None:
    src = owner(bank, "accounts_0")
    bank.sql(src, "set shardman.ddl = 'here'; create view accounts_0_fdw as select 1 as mine")
    refused = bank.cmd("select shardman.move_part('accounts_0', %s)", (src % 3 + 1,))
    bank.sql(src, "drop view accounts_0_fdw")
    assert refused.code == "name_taken", refused
    assert f"node {src} has a view accounts_0_fdw" in str(refused.error)
