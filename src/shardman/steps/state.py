"""What other nodes and commands have to know of a step from the instant at which its plan is written down.

Each is a row of a table of its own (`sql/migrations/0011_steps.sql`, which says what it means); its fields are
the table's columns. SQL reads these and never the args of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class NodeReturn:
    """What a node whose partitions others have taken over does when it is back.

    Args:
        set_aside: partitions that were promoted elsewhere.
        subscribers: nodes that have had channels from it.
    """

    table: ClassVar[str] = "node_returns"

    node: int
    set_aside: list[str]
    subscribers: list[int]


@dataclass(frozen=True)
class NodeCleaning:
    """A node that is cleaned as soon as it answers."""

    table: ClassVar[str] = "node_cleanings"

    node: int


@dataclass(frozen=True)
class StandbyIntent:
    """Commits on a node are to wait for a replica on another one, which is about to be synchronous."""

    table: ClassVar[str] = "standby_intents"

    node: int
    standby: int


@dataclass(frozen=True)
class ChannelChange:
    """A channel that is opened, or cut because its publisher is dead."""

    table: ClassVar[str] = "channel_changes"

    src: int
    dest: int
    change: Literal["open", "cut"]


State = NodeReturn | NodeCleaning | StandbyIntent | ChannelChange
TABLES = tuple(state.table for state in (NodeReturn, NodeCleaning, StandbyIntent, ChannelChange))
