"""Every verb, by the name it has in cmd_log."""

from __future__ import annotations

from collections.abc import Sequence

from shardman.commands.add_node import AddNode
from shardman.commands.base import Command
from shardman.commands.create_hash_partitions import CreateHashPartitions
from shardman.commands.create_replica import CreateReplica
from shardman.commands.drain_node import DrainNode
from shardman.commands.failover import Failover
from shardman.commands.move_part import MovePart
from shardman.commands.rebalance import Rebalance
from shardman.commands.rm_node import RmNode
from shardman.commands.rm_replica import RmReplica
from shardman.commands.set_replevel import SetReplevel
from shardman.commands.set_sync import SetSync
from shardman.commands.set_zone import SetZone
from shardman.commands.suspend_replicas import SuspendReplicas
from shardman.commands.switch_primary import SwitchPrimary
from shardman.errors import UserError

COMMANDS: dict[str, type[Command]] = {
    c.name: c
    for c in (
        AddNode,
        RmNode,
        CreateHashPartitions,
        MovePart,
        Rebalance,
        CreateReplica,
        RmReplica,
        SetReplevel,
        SetSync,
        SetZone,
        DrainNode,
        SwitchPrimary,
        SuspendReplicas,
        Failover,
    )
}


def read(cmd_type: str, opts: Sequence[str | None]) -> Command:
    """The command of a row of cmd_log.

    Raises:
        UserError: this version has no such command.
    """
    try:
        verb = COMMANDS[cmd_type]
    except KeyError:
        raise UserError(
            f"this version of the shardlord does not know the command {cmd_type}",
            "Use one of: " + ", ".join(sorted(COMMANDS)),
        ) from None
    return verb.from_opts(opts)
