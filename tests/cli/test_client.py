"""The commands in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import shardman
from shardman.testing.cluster import Cluster

Acting = Callable[..., Any]


def test_a_command_waits_and_tells(lord: Cluster, acting: Acting) -> None:
    acting("success", result="fine", result_data={"cut_over_ms": 12.5})
    seen: list[int | None] = []
    with shardman.connect(lord.lord_dsn) as db:
        result = db.move_part("acc_1", 2)
        assert result.check().result == "fine"
        assert result.result_data == {"cut_over_ms": 12.5}
        assert result.error_code is None
        assert result.title == "move_part part_name=acc_1, dest=2"
        submitted = db.rebalance("acc", wait=False)
        assert not submitted.ended
        assert db.wait(submitted.id, watch=lambda now: seen.append(now.step_no)).ok
        assert db.commands(1)[0].id == submitted.id
        row = db.connection.execute("select 1").fetchone()
        assert row == (1,)
    assert seen


def test_a_command_that_fails(lord: Cluster, acting: Acting) -> None:
    acting("failed", error="it rained", error_code="node_draining")
    with (
        shardman.connect(lord.lord_dsn) as db,
        pytest.raises(shardman.UserError, match="it rained") as failed,
    ):
        db.rm_node(7, force=True).check()
    assert failed.value.code is shardman.Code.NODE_DRAINING


def test_timeout_and_cancel(lord: Cluster, acting: Acting) -> None:
    with shardman.connect(lord.lord_dsn) as db:
        result = db.set_replevel("acc", 1, timeout=0.1)
        assert not result.ended
        assert db.cancel(result.id)
        acting()
        assert db.wait(result.id).status == "canceled"
        assert not db.cancel(result.id)
        with pytest.raises(shardman.UserError, match="there is no command"):
            db.wait(10**9, timeout=20)


def test_a_transaction_that_is_rolled_back_submits_nothing(lord: Cluster) -> None:
    with shardman.connect(lord.lord_dsn) as db:
        with db.client.connection.transaction(force_rollback=True):
            with pytest.raises(shardman.UserError, match="Commit before waiting"):
                db.rebalance("never")
            db.rebalance("never", wait=False)
        assert not [c for c in db.commands() if c.opts and "never" in c.opts]


def test_it_takes_a_connection_of_ones_own(lord: Cluster, acting: Acting) -> None:
    acting()
    with shardman.Client(psycopg.connect(lord.lord_dsn)) as db:
        assert db.create_replica("acc_1", 2).ok


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(psycopg.OperationalError, match="refused"):
        shardman.connect("host=127.0.0.1 port=1")
