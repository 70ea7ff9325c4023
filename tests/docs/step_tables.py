"""The tables of steps in docs/commands: generated from plans and from what steps declare.

``tools/step-tables`` writes them between their markers; a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tests.docs.pages import ROOT

import shardman.steps  # noqa: F401  (registers every kind)
from shardman.commands.add_foreign_key import AddForeignKey
from shardman.commands.add_node import AddNode
from shardman.commands.base import Command, Facts
from shardman.commands.build_index import BuildIndex
from shardman.commands.create_hash_partitions import CreateHashPartitions
from shardman.commands.create_replica import CreateReplica
from shardman.commands.create_shared_table import CreateSharedTable
from shardman.commands.drop_foreign_key import DropForeignKey
from shardman.commands.failover import Failover
from shardman.commands.move_part import MovePart
from shardman.commands.rename_table import RenameTable
from shardman.commands.restore_layout import RestoreLayout
from shardman.commands.rm_node import RmNode
from shardman.commands.rm_replica import RmReplica
from shardman.commands.set_partitions_count import SetPartitionsCount
from shardman.commands.set_sync import SetSync
from shardman.commands.suspend_replicas import SuspendReplicas
from shardman.commands.switch_primary import SwitchPrimary
from shardman.commands.unshard_table import UnshardTable
from shardman.commands.unshare_table import UnshareTable
from shardman.model.cluster import Cluster, Copy, Node, Shared, Table
from shardman.model.plan import Plan
from shardman.steps.base import FinishStep, StepKind, UndoableStep, bind

PAGES = ROOT / "docs" / "commands"
_LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

#: acc_0 has its primary on node 1 and a replica on node 2, acc_1 its primary on 2 and an old copy on 3.
#: Those of orders are on nodes 2 and 3, the primaries one on each.
_CLUSTER = Cluster(
    id="abcdef",
    nodes={
        0: Node(0, "host=lord", None, lord=True),
        **{n: Node(n, f"host=w{n}", "active") for n in (1, 2, 3, 4)},
    },
    tables={
        "acc": Table(
            "acc", "id", 2, 1, {"foreign_keys": [{"name": "acc_code_fkey"}]}, replevel=1, sync=True
        ),
        "orders": Table("orders", "id", 2, 1, replevel=1, sync=True),
    },
    copies=(
        Copy("acc_0", 1, None, 2, "acc"),
        Copy("acc_0", 2, 1, None, "acc"),
        Copy("acc_1", 2, None, 3, "acc"),
        Copy("acc_1", 3, 2, None, "acc", _LONG_AGO),
        Copy("orders_0", 3, None, 2, "orders"),
        Copy("orders_0", 2, 3, None, "orders"),
        Copy("orders_1", 2, None, 3, "orders"),
        Copy("orders_1", 3, 2, None, "orders"),
    ),
    shared={"codes": Shared("codes", (), (1, 2, 3, 4))},
)
_KEY = {f"identity acc_{k}": "key" for k in (0, 1)}
_ANSWERS = {f"answers {n}": True for n in _CLUSTER.nodes}
_DEAD = {**_ANSWERS, "answers 1": None}
_NEW_TABLE = {
    "described": {
        "definition": {"relation": "accounts", "expr": "id", "partitions_count": 12, "key": ["id"]},
        "create_sql": "create table accounts (id int)",
        "obstacles": [],
        "warnings": [],
        "rows": 3,
        "has_key": True,
    },
    **{f"taken {n}": [] for n in _CLUSTER.nodes},
}

#: By the name that stands in a page's marker.
_EXAMPLES: dict[str, tuple[Command, dict[str, Any]]] = {
    "add_node": (AddNode("host=node5"), {}),
    "rm_node": (RmNode(4), {"answers": True}),
    "rm_node, forced": (RmNode(1, force=True), _DEAD),
    "create_hash_partitions": (CreateHashPartitions(1, "accounts", "id", 12), _NEW_TABLE),
    "set_partitions_count": (
        SetPartitionsCount("orders", 4),
        {
            "redefined orders": {
                "definition": {"relation": "orders", "keys": [{"identity": True}], "indexes": []},
                "create_sql": "",
            },
            **{f"obstacles {n}": [] for n in _CLUSTER.nodes},
        },
    ),
    "rename_table": (
        RenameTable("orders", "sales"),
        {"digest": "", **{f"obstacles {n}": [] for n in _CLUSTER.nodes}},
    ),
    "restore_layout": (RestoreLayout("accounts", 2), {}),
    "create_shared_table": (
        CreateSharedTable("countries", 1),
        {
            "described": {"obstacles": [], "definition": {"relation": "countries"}},
            **{f"taken {n}": [] for n in _CLUSTER.nodes},
        },
    ),
    "unshare_table": (
        UnshareTable("codes", 2),
        {f"dependents {n}": [] for n in _CLUSTER.nodes},
    ),
    "add_foreign_key": (
        AddForeignKey("acc", "acc_code_fkey", "foreign key (code) references codes (id)"),
        {"item": {"name": "acc_code_fkey"}},
    ),
    "build_index": (
        BuildIndex("acc", "acc_v_idx"),
        {f"index {n}": {"unique": False, "valid": False} for n in _CLUSTER.nodes},
    ),
    "drop_foreign_key": (DropForeignKey("acc", "acc_code_fkey"), {}),
    "unshard_table": (
        UnshardTable("acc", 1),
        {**{f"dependents {n}": [] for n in _CLUSTER.nodes}, "key": True},
    ),
    "move_part": (MovePart("acc_0", 3), _KEY),
    "move_part of a replica": (MovePart("acc_0", 3, 2), _KEY),
    "create_replica": (CreateReplica("acc_0", 3), _KEY),
    "create_replica of an old copy": (CreateReplica("acc_1", 3), {**_KEY, "old copy": True}),
    "rm_replica": (RmReplica("acc_0", 2), {"primary": True}),
    "switch_primary": (SwitchPrimary("acc_0", 2), _KEY),
    "set_sync": (SetSync("acc", True), _ANSWERS),
    "suspend_replicas": (SuspendReplicas(1, 2), {}),
    "failover": (Failover(1), _DEAD),
}

_MARKED = re.compile(r"(<!-- steps: ([^>]+) -->\n).*?(<!-- end of steps -->)", re.DOTALL)
_HEADINGS = ("", "step", "makes", "a crash here leaves", "who waits", "who clears")


def example(name: str) -> Plan:
    """The plan of a marker's name.

    Raises:
        KeyError: there is no such example.
    """
    command, answers = _EXAMPLES[name]
    return command.plan(Facts(_CLUSTER, 17, answers))


def table(plan: Plan) -> str:
    """The steps of a plan as a table: what each makes, and what a crash in it means."""
    return "\n".join([_row(*_HEADINGS), _row(*["---"] * len(_HEADINGS)), *_rows(plan)])


def _rows(plan: Plan) -> Iterator[str]:
    bound = [(phase, step, bind(phase, step)) for _, phase, step in plan.steps()]
    before: str | None = None
    #: Who waits from a step on, and the kind of the steps behind the last of which they do not.
    held, until = "", ""
    left = [step.kind for _, step, _ in bound]
    for phase, step, kind in bound:
        left.pop(0)
        if kind.waits_until:
            held, until = kind.waits, kind.waits_until
        made = kind.makes().what if isinstance(kind, UndoableStep) else ""
        yield _row(
            "" if phase == before else phase,
            step.title,
            made,
            kind.leaves or ("this" if made else "nothing"),
            held or kind.waits,
            _clears(kind),
        )
        before = phase
        if held and step.kind == until and until not in left:
            held, until = "", ""


def _clears(kind: StepKind) -> str:
    if kind.clears:
        return kind.clears
    if isinstance(kind, FinishStep):
        needed = sorted(kind.needs())
        later = f"; the janitor, if node {' or '.join(map(str, needed))} is away" if needed else ""
        return f"the next shardlord repeats it{later}"
    if isinstance(kind, UndoableStep):
        return "the next shardlord undoes it and begins anew"
    return ""


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def with_tables(text: str) -> str:
    """A page with its tables as they should be."""
    return _MARKED.sub(lambda m: f"{m[1]}{table(example(m[2]))}\n{m[3]}", text)


def names(text: str) -> list[str]:
    """The examples that a page shows."""
    return [found[1] for found in _MARKED.findall(text)]


def examples() -> set[str]:
    """All that there are."""
    return set(_EXAMPLES)


if __name__ == "__main__":
    for path in sorted(PAGES.glob("*.md")):
        path.write_text(with_tables(path.read_text("utf-8")), "utf-8")
