"""No command parts what goes together: what any of them records of one partition, of a table or of a node, it
records of all partitions that go with that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from shardman.commands.arguments import Kind
from shardman.commands.base import Command
from shardman.commands.registry import COMMANDS
from shardman.model.cluster import number_of
from shardman.model.plan import Plan, Step
from steps.plans import CLUSTER, plans

GROUP = ("lines", "orders")
#: Who records something of one table of a group: its name, what it is, that it is there, whether commits wait.
OF_ONE = {
    *(
        "add_foreign_key",
        "drop_foreign_key",
        "rename_table",
        "set_sync",
        "drop_table",
        "refresh_table",
    ),
    *("build_index", "unshard_table", "colocate", "uncolocate"),
}
#: Who does nothing by itself: commands of its own do, each on one partition.
BY_OTHERS = {"rebalance", "set_replevel", "drain_node", "create_hash_partitions"}
#: Who has to do with no partition.
APART = {
    *("restore_layout", "forget_layout"),
    *("add_node", "maintain", "set_zone", "sync_roles", "create_shared_table", "unshare_table"),
    *("create_restore_point", "drop_aside"),
}


def concerns_the_group(command: Command, plan: Plan) -> bool:
    """Whether a command records something of a partition or a table of the group."""
    return any(found in GROUP for found, _ in recorded(plan))


def recorded(plan: Plan) -> Iterator[tuple[str, Any]]:
    """What the switch says of each table, with its partitions' numbers in place of their names."""
    for step in plan.switch:
        yield from _said(step)


def _said(step: Step) -> Iterator[tuple[str, Any]]:
    args = dict(step.args)
    if "relation" in args:
        yield str(args.pop("relation")), (step.kind, args.get("former"))
    for part in _parts(args):
        relation = CLUSTER.primary(part).relation
        rest = {k: _of(v, part) for k, v in args.items()}
        yield relation, (step.kind, number_of(part), str(rest))


def _parts(args: Mapping[str, Any]) -> list[str]:
    found = [args["part"]] if "part" in args else list(args.get("parts", ()))
    found += list(args.get("promoted", ()))
    found += [part for part, _ in (*args.get("stale", ()), *args.get("dropped", ()))]
    return sorted(set(found))


def _of(value: Any, part: str) -> Any:
    """What an argument says of one partition."""
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [rest for name, *rest in value if name == part]
    if isinstance(value, list) and value and isinstance(value[0], str):
        return part in value
    return None if value == part else value


WHOLE = [
    (command, plan)
    for command, plan in plans()
    if command.name not in OF_ONE and concerns_the_group(command, plan)
]


@pytest.mark.parametrize(("command", "plan"), WHOLE, ids=lambda v: repr(v)[:60])
def test_what_is_recorded_of_one_is_recorded_of_all(command: Command, plan: Plan) -> None:
    lines, orders = (sorted(repr(s) for t, s in recorded(plan) if t == each) for each in GROUP)
    assert lines == orders


def test_no_verb_is_left_out() -> None:
    """One with a partition, a table or a node in its arguments has a sample that meets the group."""
    kinds = {Kind.PARTITION, Kind.RELATION, Kind.NODE}
    about = {
        name
        for name, cls in COMMANDS.items()
        if any(argument.kind in kinds for argument in cls.arguments())
    }
    covered = {command.name for command, _ in WHOLE}
    assert about - covered - OF_ONE - BY_OTHERS - APART == set()
    assert not covered & (OF_ONE | BY_OTHERS | APART)
