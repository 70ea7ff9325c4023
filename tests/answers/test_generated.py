"""Generated statements have the same answers on a cluster, at any node, as on one plain server."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from answers.grammar import Query, mend, queries, writes
from answers.twin import Twin

#: Hours of it: SHARDMAN_LONG=1, with other statements each time.
LONG = bool(os.environ.get("SHARDMAN_LONG"))
pytestmark = pytest.mark.timeout(1200)

COMMON = settings(
    deadline=None,
    derandomize=not LONG,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
NODES = st.sampled_from((0, 1, 2, 3))


@settings(COMMON, max_examples=5000 if LONG else 150)
@given(node=NODES, query=queries())
def test_queries(twin: Twin, node: int, query: Query) -> None:
    answer = twin.same(node, mend(query.sql), ordered=query.ordered)
    assert answer.error is None, answer.message


@settings(COMMON, max_examples=2000 if LONG else 40)
@given(
    node=NODES,
    statements=st.lists(st.one_of(writes(), queries()), min_size=1, max_size=6),
    commit=st.booleans(),
)
def test_transactions(
    twin: Twin, node: int, statements: Sequence[str | Query], commit: bool
) -> None:
    """A transaction through one node, a savepoint around each statement, seen by the others."""
    twin.reset()
    twin.same(node, "begin")
    for statement in statements:
        twin.same(node, "savepoint s")
        if isinstance(statement, Query):
            answer = twin.same(node, mend(statement.sql), ordered=statement.ordered)
        else:
            answer = twin.same(node, mend(statement))
        twin.same(node, "rollback to savepoint s" if answer.error else "release savepoint s")
    twin.same_contents([node])
    twin.dirty = commit
    twin.same(node, "commit" if commit else "rollback")
    twin.same_contents([(node + 1) % 4])
