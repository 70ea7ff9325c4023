"""Typical plans of every verb, made without a server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from shardman.commands.add_foreign_key import AddForeignKey
from shardman.commands.add_node import AddNode
from shardman.commands.base import Command, Facts
from shardman.commands.build_index import BuildIndex
from shardman.commands.colocate import Colocate
from shardman.commands.create_hash_partitions import CreateHashPartitions
from shardman.commands.create_replica import CreateReplica
from shardman.commands.create_restore_point import CreateRestorePoint
from shardman.commands.create_shared_table import CreateSharedTable
from shardman.commands.drain_node import DrainNode
from shardman.commands.drop_aside import DropAside
from shardman.commands.drop_foreign_key import DropForeignKey
from shardman.commands.drop_table import DropTable
from shardman.commands.failover import Failover
from shardman.commands.forget_layout import ForgetLayout
from shardman.commands.maintain import Maintain
from shardman.commands.move_part import MovePart
from shardman.commands.rebalance import Rebalance
from shardman.commands.refresh_table import RefreshTable
from shardman.commands.rename_table import RenameTable
from shardman.commands.restore_layout import RestoreLayout
from shardman.commands.rm_node import RmNode
from shardman.commands.rm_replica import RmReplica
from shardman.commands.set_partitions_count import SetPartitionsCount
from shardman.commands.set_replevel import SetReplevel
from shardman.commands.set_sync import SetSync
from shardman.commands.set_zone import SetZone
from shardman.commands.suspend_replicas import SuspendReplicas
from shardman.commands.switch_primary import SwitchPrimary
from shardman.commands.sync_roles import SyncRoles
from shardman.commands.uncolocate import Uncolocate
from shardman.commands.unshard_table import UnshardTable
from shardman.commands.unshare_table import UnshareTable
from shardman.model.cluster import Cluster, Copy, Node, Shared, Table
from shardman.model.plan import Json, Plan

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

_KEY: list[Json] = [{"sql": "id", "column": "id", "type": "integer"}]
_ORDERS: dict[str, Json] = {"key": _KEY}
_LINES: dict[str, Json] = {"key": _KEY, "foreign_keys": [{"to": "orders", "to_columns": ["id"]}]}
_MORE: dict[str, Json] = {"key": _KEY, "foreign_keys": [{"name": "another", "to": "codes"}]}
#: Node 3 is in maintenance. acc_0: primary on 1, replicas on 2 and 3. acc_1: primary on 2, replica on 1, an old
#: copy on 3. more_0: primary on 1, replica on 2. bare has no replicas, nor has wide, on nodes 3 and 2. orders
#: and lines are colocated, and lines refers to orders. So are north and south, which refer to nothing.
CLUSTER = Cluster(
    id="abcdef",
    nodes={
        0: Node(0, "host=lord", None, lord=True),
        **{n: Node(n, f"host=w{n}", "active", maintained=n == 3) for n in (1, 2, 3, 4)},
    },
    tables={
        "acc": Table("acc", "id", 2, 1, replevel=1, sync=True),
        "more": Table("more", "id", 1, 1, _MORE, replevel=1),
        "bare": Table("bare", "id", 1, 3, replevel=0, sync=True),
        "wide": Table("wide", "id", 2, 3, replevel=0, sync=True),
        "orders": Table("orders", "id", 1, 2, _ORDERS, replevel=1, colocation=3),
        "north": Table("north", "id", 1, 3, colocation=4),
        "south": Table("south", "id", 1, 3, colocation=4),
        "lines": Table("lines", "id", 1, 2, _LINES, replevel=1, colocation=3),
    },
    copies=(
        Copy("acc_0", 1, None, 2, "acc"),
        Copy("acc_0", 2, 1, 3, "acc"),
        Copy("acc_0", 3, 2, None, "acc"),
        Copy("acc_1", 2, None, 1, "acc"),
        Copy("acc_1", 1, 2, 3, "acc"),
        Copy("acc_1", 3, 1, None, "acc", LONG_AGO),
        Copy("more_0", 1, None, 2, "more"),
        Copy("more_0", 2, 1, None, "more"),
        Copy("bare_0", 3, None, None, "bare"),
        Copy("wide_0", 3, None, None, "wide"),
        Copy("wide_1", 2, None, None, "wide"),
        Copy("north_0", 3, None, None, "north"),
        Copy("south_0", 3, None, None, "south"),
        Copy("orders_0", 2, None, 1, "orders"),
        Copy("orders_0", 1, 2, None, "orders"),
        Copy("lines_0", 2, None, 1, "lines"),
        Copy("lines_0", 1, 2, None, "lines"),
    ),
    shared={"codes": Shared("codes", (), (1, 2, 3, 4))},
)
_DESCRIBED = {
    "definition": {
        "relation": "t",
        "expr": "id",
        "partitions_count": 2,
        "key": ["id"],
        "shared_indexes": [{}],
    },
    "create_sql": "create table t (id int)",
    "obstacles": [],
    "warnings": [],
    "rows": 3,
}
_ANSWER = {f"answers {n}": True for n in CLUSTER.nodes}
_SIZES = {f"sizes {n}": {} for n in (1, 2, 3, 4)}


def _identity(identity: str) -> dict[str, Any]:
    return {f"identity {part}": identity for part in CLUSTER.primaries}


def samples() -> Iterator[tuple[Command, dict[str, Any]]]:
    """Commands, each with what the nodes answer."""
    yield AddNode("host=new", "north"), {}
    yield AddNode("host=lord"), {"lord": True}
    yield RmNode(4), {"answers": True}
    yield RmNode(1, force=True), {**_ANSWER, "answers 1": None}
    for has_key in (True, False):
        described = {**_DESCRIBED, "has_key": has_key, "views": ["v"]}
        yield (
            CreateHashPartitions(1, "t", "id", 2),
            {"described": described, **{f"taken {n}": [] for n in CLUSTER.nodes}},
        )
    beside = {**_DESCRIBED, "has_key": True, "definition": {"relation": "t", "key": _KEY}}
    yield (
        CreateHashPartitions(1, "t", "id", colocate_with="orders"),
        {"described": beside, **{f"taken {n}": [] for n in CLUSTER.nodes}},
    )
    for identity in ("key", "default", "full"):
        yield MovePart("acc_0", 4), _identity(identity)
        yield MovePart("acc_0", 4, 2), _identity(identity)
        yield CreateReplica("acc_0", 4), _identity(identity)
        yield CreateReplica("acc_1", 3), {**_identity(identity), "old copy": True}
        yield CreateReplica("acc_1", 3), {**_identity(identity), "old copy": False}
        yield SwitchPrimary("acc_0", 2), _identity(identity)
        yield MovePart("lines_0", 4), _identity(identity)
        yield MovePart("lines_0", 4, 1), _identity(identity)
        yield SwitchPrimary("orders_0", 1), _identity(identity)
    yield RmReplica("acc_0", 2), {"primary": True}
    yield CreateReplica("lines_0", 4), _identity("key")
    yield RmReplica("orders_0", 1), {"primary": True}
    yield SuspendReplicas(2, 1, "lines"), {}
    yield Rebalance("acc"), _SIZES
    yield SetReplevel("acc", 2), _ANSWER
    yield SetSync("acc", True), _ANSWER
    yield SetSync("acc", False), {}
    yield SetZone(1, "north"), {}
    yield CreateRestorePoint("evening"), {}
    yield SyncRoles(), {"obstacle": ""}
    yield SyncRoles(2, "clerk"), {"obstacle": ""}
    shared = {
        "described": {"obstacles": [], "definition": {"relation": "plain"}, "views": [1]},
        **{f"taken {n}": [] for n in CLUSTER.nodes},
    }
    for relation in ("plain", "codes"):
        yield CreateSharedTable(relation, 1), shared
    yield UnshareTable("codes", 2), {f"dependents {n}": [] for n in CLUSTER.nodes}
    alone = {f"dependents {n}": [] for n in CLUSTER.nodes}
    yield DropTable("bare"), alone
    yield DropTable("codes"), alone
    yield DropTable("lines"), alone
    yield DropTable("acc", aside=True), {**alone, "asides 2": ["acc_0_aside_c7"]}
    resized = {
        **{
            f"redefined {t}": {
                "definition": {
                    **_DESCRIBED["definition"],
                    "keys": [{"identity": True}],
                    "indexes": [],
                },
                "create_sql": "",
            }
            for t in CLUSTER.tables
        },
        **{f"obstacles {n}": [] for n in CLUSTER.nodes},
    }
    yield SetPartitionsCount("more", 3), resized
    yield SetPartitionsCount("wide", 1), resized
    yield SetPartitionsCount("lines", 4), resized

    renamed = {"digest": "d", **{f"obstacles {n}": [] for n in CLUSTER.nodes}}
    yield RenameTable("more", "other"), renamed
    yield RenameTable("orders", "app.orders"), renamed
    yield RenameTable("orders", "sales", follow=True), {**renamed, "called 1": "sales"}
    yield RenameTable("codes", "other"), renamed
    yield RestoreLayout("codes", 2), {}
    yield ForgetLayout("codes"), {}
    aside = {"part_name": "acc_0", "cmd_type": "failover", "in_use": False}
    asides = [
        {**aside, "name": "acc_0_aside_c7"},
        {**aside, "name": "acc_0_aside_c8", "in_use": True},
        {**aside, "name": "acc_0_aside_c9", "cmd_type": "add_node"},
    ]
    for chosen in (None, "acc_0_aside_c7"):
        yield DropAside(2, chosen), {"asides": asides, "served 1": ["acc_0"]}
    yield UnshardTable("bare", 1), alone
    yield UnshardTable("acc", 1, aside=True), {**alone, "asides 2": ["acc_0_aside_c7"], "key": True}
    yield (
        RefreshTable("acc"),
        {"redefined 1": {"definition": _DESCRIBED["definition"], "create_sql": ""}},
    )
    yield (
        AddForeignKey("more", "fk", "foreign key (a) references codes (id)"),
        {"item": {"name": "fk"}},
    )
    yield DropForeignKey("more", "another"), {}
    yield RefreshTable("codes"), {"redefined 1": _DESCRIBED["definition"]}
    built = {"unique": False, "valid": False, "sql": "USING btree (v)"}
    yield BuildIndex("acc", "acc_v_idx"), {f"index {n}": built for n in CLUSTER.nodes}
    yield Colocate("more", "lines"), {}
    yield Uncolocate("north"), {}
    yield DrainNode(1), _ANSWER
    yield DrainNode(1, drain=False), {}
    yield Maintain(1), {}
    yield Maintain(3, maintain=False), _ANSWER
    yield SuspendReplicas(1, 2), {}
    yield SuspendReplicas(1, 2, "acc"), {}
    yield Failover(1), {**_ANSWER, "answers 1": None}
    yield Failover(2, accept_data_loss=True), {**_ANSWER, "answers 2": None}
    yield Failover(1, part_name="acc_0"), {**_ANSWER, "there acc_0": False}
    one = {"there lines_0": False, "there orders_0": True}
    yield Failover(2, part_name="lines_0"), {**_ANSWER, **one}


def plans() -> list[tuple[Command, Plan]]:
    """Commands, each with a plan of it."""
    return [(c, c.plan(Facts(CLUSTER, 7, answers))) for c, answers in samples()]
