"""Every block of the documentation that is marked ``sql runnable`` runs, on a worker."""

from __future__ import annotations

import psycopg
import pytest
from tests.docs.pages import PAGES, Block, blocks

from shardman.testing.cluster import Cluster

RUNNABLE = [b for page in PAGES for b in blocks(page) if "runnable" in b.marks.split()]


@pytest.fixture(scope="module")
def bank(cluster: Cluster) -> Cluster:
    """What the examples speak of: accounts in twelve partitions."""
    cluster.sql(1, "create table accounts (id bigint primary key, balance numeric not null)")
    cluster.sql(1, "insert into accounts select i, 100 from generate_series(1, 1000) as i")
    done = cluster.cmd("select shardman.create_hash_partitions(1, 'accounts', 'id', 12)")
    assert done.status == "success", done
    return cluster


def test_there_are_examples() -> None:
    assert len(RUNNABLE) >= 4


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda b: b.name)
def test_runs(bank: Cluster, block: Block) -> None:
    if "move_part('accounts_3', 2)" in block.code:
        owner = bank.value(
            0, "select owner from shardman.partitions where part_name = 'accounts_3'"
        )
        if owner == 2:
            bank.cmd("select shardman.move_part('accounts_3', 1)")
    with psycopg.connect(bank.dsn(1), autocommit=True) as worker:
        cursor = worker.execute(block.code.encode())
        row = cursor.fetchone() if cursor.description else None
        submits = cursor.description is not None and cursor.description[0].name in (
            "move_part",
            "rebalance",
            "create_hash_partitions",
            "add_node",
            "rm_node",
        )
    if submits:
        assert row is not None
        done = bank.wait(int(row[0]))
        assert done.status in ("success", "done"), done
