"""The functions that users call, in their sessions and beside their transactions."""

from __future__ import annotations

import pytest

from sql.databases import LORD, Nodes


@pytest.mark.parametrize(
    "setting",
    ["standard_conforming_strings = off", "quote_all_identifiers = on", "array_nulls = off"],
)
def test_a_call_means_the_same_whatever_is_set(nodes: Nodes, setting: str) -> None:
    lord = nodes[LORD]
    with lord.connect() as session:
        session.execute(f"set {setting}".encode())
        session.execute("select shardman.create_hash_partitions(1, 'orders', 'id', 4)")
        session.execute("select shardman.move_part('orders_1', 2)")
    opts = [
        row[0]
        for row in lord.rows(
            "select json_object_agg(name, opt) from shardman.cmd_opts group by cmd_id order by cmd_id"
        )
    ]
    made, moved = opts
    assert made["relation"] == "orders"
    assert (moved["part_name"], moved["src"]) == ("orders_1", None)


def test_a_prepared_transaction_is_named(nodes: Nodes) -> None:
    """It has no process, and nobody thinks of it."""
    lord = nodes[LORD]
    lord.run("create table held (id int)")
    with lord.connect() as session:
        session.execute("begin")
        session.execute("insert into held values (1)")
        session.execute("prepare transaction 'left behind'")
    try:
        assert "'left behind'" in lord.value("select shardman.holders(array['held'])")
        lord.run("select pg_sleep(1.1)")
        assert "ROLLBACK PREPARED" in lord.value("select shardman.writers()")
    finally:
        lord.run("rollback prepared 'left behind'")
    assert lord.value("select shardman.writers()") is None


def test_what_nobody_has_begun_is_cancelled_at_once(nodes: Nodes) -> None:
    lord = nodes[LORD]
    cmd = lord.value("select shardman.add_node('host=nowhere password=hush')")
    assert lord.value("select shardman.cancel_cmd(%s)", cmd)
    assert lord.value("select shardman.cmd_wait(%s)", cmd) == "canceled"
    assert lord.value("select count(*) from shardman.cmd_secrets") == 0
    assert not lord.value("select shardman.cancel_cmd(%s)", cmd)
