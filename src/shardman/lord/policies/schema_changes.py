"""What becomes of changes of the schema that not all nodes have: they go forward, everywhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

#: Errors that say nothing about the change: it is tried again.
PASSING = ("08", "40", "53", "55", "57", "58")
#: What a CREATE gets where that is there, and a DROP where it is not.
THERE = frozenset({"42P06", "42710", "42723", "42P07"})
GONE = frozenset({"42P01", "42883", "42704", "3F000", "42809"})
HAS_IT = "SHM17"


@dataclass(frozen=True)
class Key:
    """Which change. Two senders may say the same id, and mean two changes."""

    id: str
    sender: str


@dataclass(frozen=True)
class Change:
    """A row of shardman.schema_changes, as one node has it.

    Args:
        made_at: by the clock of the node where it was sent, in seconds.
    """

    key: Key
    statement: str
    tag: str
    target: str
    tables: tuple[str, ...]
    nodes: frozenset[int]
    settled: bool
    made_at: float

    @property
    def queue(self) -> tuple[str, str]:
        """Those of one queue come to a node in their order. Who may grant may not hold up the owner."""
        if self.target and self.tag not in ("GRANT", "REVOKE"):
            return ("table", self.target)
        return ("sender", self.key.sender)

    def is_there(self, state: str) -> bool:
        """Whether an error of its statement says that a node is already as it would be afterwards."""
        return (self.tag.startswith("CREATE") and state in THERE) or (
            self.tag.startswith("DROP") and state in GONE
        )


@dataclass(frozen=True)
class Repeat:
    """A change that one node has and another lacks."""

    change: Change
    source: int
    node: int


@dataclass
class Due:
    """What is to be done.

    Args:
        repeats: in the order in which they are to come to each node.
        settle: nodes that are to write down that all have a change.
        forget: nodes that need not know a change any more.
        waiting: changes that nodes lack which do not answer.
    """

    repeats: list[Repeat] = field(default_factory=list)
    settle: list[tuple[int, Key]] = field(default_factory=list)
    forget: list[tuple[int, Key]] = field(default_factory=list)
    waiting: list[tuple[Change, int]] = field(default_factory=list)


def due(found: Mapping[int, Sequence[Change]], members: Collection[int]) -> Due:
    """What is to be done about the changes that nodes have.

    A change that is settled anywhere was on all of them once: it is not repeated, also where the row has gone.
    It goes only where all say so, for one that did not would take the others for nodes that lack it.

    Args:
        found: what each node that answered has, in its order.
        members: the nodes of the cluster, those that did not answer included.
    """
    holders: dict[Key, dict[int, Change]] = {}
    for node, changes in found.items():
        for change in changes:
            holders.setdefault(change.key, {})[node] = change
    result = Due()
    for key, having in sorted(holders.items(), key=lambda h: min(c.made_at for c in h[1].values())):
        wanted = {n for c in having.values() for n in c.nodes} & set(members)
        _judge(result, key, having, wanted, answered=set(found))
    return result


def _judge(
    result: Due, key: Key, having: Mapping[int, Change], wanted: set[int], answered: set[int]
) -> None:
    is_settled = any(c.settled for c in having.values())
    lacking = set() if is_settled else wanted - set(having)
    source = min(having)
    result.repeats += [Repeat(having[source], source, n) for n in sorted(lacking & answered)]
    result.waiting += [(having[source], n) for n in sorted(lacking - answered)]
    if lacking:
        return
    unsettled = sorted(n for n, c in having.items() if not c.settled)
    if is_settled and not unsettled:
        if wanted <= answered:
            result.forget += [(n, key) for n in sorted(having)]
    elif is_settled or wanted <= answered:
        result.settle += [(n, key) for n in unsettled]
