"""drop_table: what is dropped with a table, and what must be said."""

from __future__ import annotations

from typing import Any

import pytest

from lord.policies.clusters import cluster
from shardman.commands.base import Facts
from shardman.commands.drop_table import DropTable
from shardman.errors import UserError

#: DROP TABLE has put it away on all nodes, and a node that was replaced meanwhile is back.
ANSWERS: dict[str, Any] = {
    **{f"dependents {n}": [] for n in range(4)},
    **{f"called {n}": "shardman_dropped.acc" for n in range(4)},
    "asides 2": ["acc_0_aside_c3"],
}
FACTS = Facts(cluster([1, 2, 3], {"acc_0": [1]}), 7, ANSWERS)


def test_what_was_set_aside_must_be_meant() -> None:
    with pytest.raises(UserError, match="acc_0_aside_c3 on node 2"):
        DropTable("acc").plan(FACTS)


@pytest.mark.parametrize("command", [DropTable("acc", aside=True), DropTable("acc", follow=True)])
def test_it_goes_with_the_table(command: DropTable) -> None:
    """Behind DROP TABLE, which was refused had it been there then, nobody is asked: it would never end."""
    (dropped,) = (s for s in command.plan(FACTS).finish if s.kind == "drop_asides")
    assert dropped.args == {"node": 2, "names": ["acc_0_aside_c3"]}
