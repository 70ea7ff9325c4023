"""Replicas are made and dropped, nodes die and come back, plans are cut anywhere: planning again always
ends in a cluster that is whole, and nothing that was acknowledged is lost on the way.

The model of what was written: each copy has the number of the last write that it holds. A write goes to
the primary and to the copies that hang on it; it is acknowledged when the metadata has no other that
would follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from model.test_replicas import LONG_AGO
from shardman.model.cluster import Cluster, Copy, Node, Table
from shardman.model.replicas import changes
from shardman.model.succession import succeed

NODES = range(1, 6)
PARTS = [f"acc_{k}" for k in range(2)]


@dataclass
class Part:
    """The copies of a partition in their order, those that follow nobody, and what each holds.

    Args:
        hangs: the node from which the channel to a replica comes.
    """

    order: list[int]
    stale: set[int] = field(default_factory=set)
    holds: dict[int, int] = field(default_factory=dict)
    hangs: dict[int, int] = field(default_factory=dict)
    acknowledged: int = 0


class Survival(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, Part] = {}
        self.dead: set[int] = set()

    @initialize(first=st.lists(st.sampled_from(NODES), min_size=2, max_size=2))
    def begin(self, first: list[int]) -> None:
        self.parts = {p: Part([n], holds={n: 0}) for p, n in zip(PARTS, first, strict=True)}

    def cluster(self) -> Cluster:
        nodes = {0: Node(0, "host=lord", None, lord=True)}
        nodes |= {n: Node(n, f"host=n{n}", "active") for n in NODES}
        copies = []
        for name, part in self.parts.items():
            around = [None, *part.order, None]
            for k, owner in enumerate(part.order):
                since = LONG_AGO if owner in part.stale else None
                copies.append(Copy(name, owner, around[k], around[k + 2], "acc", since))
        return Cluster("abcdef", nodes, {"acc": Table("acc", "id", 2, 1)}, tuple(copies))

    @rule(name=st.sampled_from(PARTS))
    def write(self, name: str) -> None:
        """Acknowledged only when the primary and all that follow it have it."""
        part = self.parts[name]
        following = [n for n in part.order if n not in part.stale]
        if self.dead & set(following):
            return
        part.acknowledged += 1
        primary = part.order[0]
        for node in part.order:
            if node == primary or part.hangs.get(node) == primary:
                part.holds[node] = part.acknowledged

    @rule(level=st.integers(1, 3), cut=st.integers(0, 8))
    def bring_to_level(self, level: int, cut: int) -> None:
        """A plan that is cut anywhere."""
        for change in changes(self.cluster(), "acc", level, self.alive(), self.alive())[:cut]:
            self.apply(change.part_name, change.node, change.add)

    def apply(self, name: str, node: int, add: bool) -> None:
        part = self.parts[name]
        if not add:
            assert part.order[0] not in self.dead, "this may be the last copy"
            part.order.remove(node)
            part.stale.discard(node)
            part.holds.pop(node)
            return
        if part.order[0] in self.dead:
            return  # There is nobody to copy from: the command fails.
        if node not in part.order:
            part.order.append(node)
        part.stale.discard(node)
        part.holds[node] = part.holds[part.order[0]]
        part.hangs[node] = part.order[0]

    @rule(name=st.sampled_from(PARTS), copy=st.integers(0, 2))
    def die(self, name: str, copy: int) -> None:
        """As many nodes as there are replicas may; two at a time here."""
        order = self.parts[name].order
        if len(self.dead) < 2:
            self.dead.add(order[copy % len(order)])

    @rule(name=st.sampled_from(PARTS))
    def take_over(self, name: str) -> None:
        for node in sorted(self.dead):
            after = succeed(self.cluster(), node, self.alive())
            for name, order in after.promoted.items():
                part = self.parts[name]
                part.order = list(order)
                part.holds.pop(node)
            for behind, copy in after.stale:
                self.parts[behind].stale.add(copy)
        self.write(name)

    @rule(name=st.sampled_from(PARTS), copy=st.integers(1, 3))
    def leave_behind(self, name: str, copy: int) -> None:
        """A channel between living nodes breaks."""
        part = self.parts[name]
        for node in part.order[copy : copy + 1]:
            part.stale.add(node)
            part.hangs.pop(node, None)
        self.write(name)

    @rule()
    def come_back(self) -> None:
        self.dead.clear()

    def alive(self) -> list[int]:
        return [n for n in NODES if n not in self.dead]

    @invariant()
    def nothing_is_lost(self) -> None:
        for name, part in self.parts.items():
            assert len(set(part.order)) == len(part.order)
            assert part.order[0] not in part.stale
            for node in part.order:
                if node not in part.stale:
                    assert part.holds[node] == part.acknowledged, name

    @invariant()
    def planning_again_makes_it_whole(self) -> None:
        for level in (0, 2):
            copy = Survival()
            copy.parts = {
                n: Part(list(p.order), set(p.stale), dict(p.holds), dict(p.hangs), p.acknowledged)
                for n, p in self.parts.items()
            }
            for change in changes(copy.cluster(), "acc", level, NODES, NODES):
                copy.apply(change.part_name, change.node, change.add)
            for part in copy.parts.values():
                assert len(part.order) == level + 1
                assert not part.stale
            copy.nothing_is_lost()


Survival.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSurvival = Survival.TestCase
