"""The same tables on a cluster and on a plain server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from answers.twin import Twin
from shardman.testing.cluster import Cluster

HERE = Path(__file__).parent
PARTITIONS = {
    "acc": ("id", 5),
    "item": ("acc_id", 5),
    "ev": ("kind", 4),
    "person": ("lower(name)", 3),
}


@pytest.fixture(scope="module")
def twin(cluster: Cluster) -> Iterator[Twin]:
    """Accounts and items, events and persons: see model.sql."""
    rows = (HERE / "rows.sql").read_text()
    schema = (HERE / "model.sql").read_text()
    made = Twin(cluster, schema, PARTITIONS, lambda session: session.execute(rows))
    yield made
    made.close()
