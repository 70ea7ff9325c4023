"""move_part: where it refuses to move to."""

from __future__ import annotations

import pytest

from shardman.commands.move_part import MovePart
from shardman.errors import UserError
from shardman.model.cluster import Cluster, Copy, Node, Table

CLUSTER = Cluster(
    id="abcdef",
    nodes={0: Node(0, "", None, lord=True), **{i: Node(i, "", "active") for i in (1, 2, 3)}},
    tables={"acc": Table("acc", "id", 1, 1)},
    copies=(
        Copy("acc_0", 1, None, 2, "acc"),
        Copy("acc_0", 2, 1, 3, "acc"),
        Copy("acc_0", 3, 2, None, "acc"),
    ),
)


@pytest.mark.parametrize(
    ("dest", "src", "hint"),
    [(2, None, "with switch_primary"), (2, 1, "with switch_primary"), (1, None, "Choose another"),
     (1, 2, "Choose another"), (3, 2, "Choose another")],
)  # fmt: skip
def test_a_node_that_has_a_copy_is_no_destination(dest: int, src: int | None, hint: str) -> None:
    with pytest.raises(UserError, match="has a copy of acc_0 already") as refused:
        MovePart("acc_0", dest, src).source(CLUSTER)
    assert hint in refused.value.hint
