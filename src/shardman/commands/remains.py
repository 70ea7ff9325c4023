"""What on each node stands in the way of a sharded table that is about to go: what is made of it, and what
failovers have set aside of it. Shared by drop_table, unshard_table and unshare_table; and what is
in the way of one that comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardman.commands.base import Facts
from shardman.errors import Code, UserError
from shardman.model.plan import Step


def need_alone(facts: Facts, relation: str, node: int, way_out: str) -> None:
    """Judges what a node has answered to the question ``dependents <node>``.

    Raises:
        UserError: it has not answered, or something there needs the table.
    """
    answer = facts.answers.get(f"dependents {node}")
    if answer is None:
        raise UserError(
            f"node {node} cannot be reached, and {relation} is there too",
            "Start it, or remove it with rm_node, and try again",
            code=Code.NODE_UNREACHABLE,
        )
    if answer:
        raise UserError(
            f"{', '.join(answer)} on node {node} needs {relation}",
            way_out,
            code=Code.TABLE_UNSUITABLE,
        )


def asides(facts: Facts, relation: str, *, may_go: bool, call: str) -> dict[int, tuple[str, ...]]:
    """By node what was set aside of a table there, by the answers to the questions ``asides <node>``.

    Args:
        may_go: somebody has said that it is to be dropped too.
        call: how to say that.

    Raises:
        UserError: there is something, and nobody said that it may go.
    """
    found = {
        node: names
        for node in facts.cluster.members
        if (names := tuple(facts.answers.get(f"asides {node}") or ()))
    }
    for node, names in found.items():
        if not may_go:
            raise UserError(
                f"{', '.join(names)} on node {node}, which a failover has set aside, may have rows of"
                f" {relation} that are nowhere else",
                f"Drop all of it: {call}; or look at it first (shardman.set_aside on that node)",
                code=Code.TABLE_UNSUITABLE,
            )
    return found


def drop_asides(relation: str, found: Mapping[int, tuple[str, ...]]) -> tuple[Step, ...]:
    """Their checks name the table, which cannot be dropped as long as they are there: these come first."""
    return tuple(
        Step(
            "drop_asides",
            f"drop what was set aside of {relation} on node {node}",
            {"node": node, "names": list(names)},
        )
        for node, names in found.items()
    )


def sequences_taken(facts: Facts, node: int, definition: Mapping[str, Any]) -> list[str]:
    """Which sequences of a new table cannot have their names on a node, by its answer to ``used <node>``.

    Args:
        definition: of the table; empty: nothing is known of it.
    """
    used = frozenset(facts.answers.get(f"used {node}") or ())
    return [s["name"] for s in definition.get("sequences") or () if s["name"] in used]
