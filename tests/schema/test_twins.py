"""Generated DDL and writes, through any node, leave what they leave on a plain server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from schema.ddl_grammar import new_name, statement
from schema.twins import NODES, Twins
from shardman.testing.cluster import Cluster

#: An hour of it: SHARDMAN_LONG=1, with other statements each time; SHARDMAN_EXAMPLES says how many.
LONG = bool(os.environ.get("SHARDMAN_LONG"))
EXAMPLES = int(os.environ.get("SHARDMAN_EXAMPLES", "300" if LONG else "2"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def twins(cluster: Cluster) -> Iterator[Twins]:
    made = Twins(cluster)
    yield made
    made.close()
    print(f"{made.tried} statements; refused here alone: {made.refusals}")


@settings(
    max_examples=EXAMPLES,
    derandomize=not LONG,
    database=None,
    # No shrinking: each example costs seconds. What was said is short enough to read.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(rng=st.randoms(use_true_random=False))
def test_statements_do_what_they_do_on_a_plain_server(twins: Twins, rng: Random) -> None:
    body(twins, rng)


def body(twins: Twins, rng: Random) -> None:
    """New tables, some statements and transactions through any node, all compared after each."""
    # Replicas cost seconds.
    twins.level = rng.choice((0, 1)) if LONG else 0
    twins.renew()
    for _ in range(rng.randint(8, 20)):
        node = rng.choice(NODES)
        what = rng.randint(0, 10)
        if what == 0:
            twins.say(node, new_name(rng, twins.shape(node)))
            twins.settle()
        elif what == 1:
            twins.refer(node, rng.choice(("", " on delete cascade")))
        elif what <= 4:
            _transaction(twins, rng, node)
        else:
            twins.say(node, statement(rng, twins.shape(node)))
        twins.compare()
    twins.healthy()


def _transaction(twins: Twins, rng: Random, node: int) -> None:
    """The next statement is drawn when the one before is done: it names what there is then."""
    count = rng.randint(1, 4)
    statements = (statement(rng, twins.shape(node)) for _ in range(count))
    twins.transaction(node, statements, rng.choice((True, False)))
