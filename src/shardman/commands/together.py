"""What keeps a table from being changed on all nodes at one instant.

Shared by set_partitions_count and rename_table.
"""

from __future__ import annotations

from collections.abc import Iterable

from shardman.commands.base import Facts
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster


def need_possible(facts: Facts, nodes: Iterable[int]) -> None:
    """Judges what nodes have answered to the questions ``obstacles <node>``.

    Raises:
        UserError: one has not answered, or something there is in the way.
    """
    for node in nodes:
        obstacles = facts.answers.get(f"obstacles {node}")
        if obstacles is None:
            raise UserError(
                f"node {node} cannot be reached, and all nodes must change together",
                "Start it, or remove it with rm_node, and try again",
                code=Code.NODE_UNREACHABLE,
            )
        if obstacles:
            first, more = obstacles[0], len(obstacles) - 1
            others = f" (and {more} more in the way)" if more else ""
            raise UserError(
                f"node {node}: {first['what']}{others}", first["hint"], code=Code.TABLE_UNSUITABLE
            )


def need_whole(cluster: Cluster, relation: str) -> None:
    """Judges the replicas of a table.

    Raises:
        UserError: one does not follow its primary.
    """
    for copy in cluster.copies:
        if copy.relation == relation and copy.stale_since is not None:
            raise UserError(
                f"the replica of {copy.part_name} on node {copy.owner} does not follow its primary",
                "Wait until it does, or drop it with rm_replica",
                code=Code.REPLICA_STALE,
            )
