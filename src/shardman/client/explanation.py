"""Where a statement would go, told."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.client.router import Query, Router
from shardman.client.routing.placeholders import Params


@dataclass(frozen=True)
class Route:
    """Where a statement would go.

    Args:
        node: in words.
        straight: it goes to the owner of its rows, and names the partition there.
        partitions: that it names then.
        single: it touches at most one partition.
        reason: why.
        statement: what would be sent, when it is not sent as it is.
        asked: the nodes that answer for their partitions; their answers are put together.
        split: these nodes get the statement, each its part.
    """

    node: str
    straight: bool
    partitions: tuple[str, ...]
    single: bool
    reason: str
    statement: str | None = None
    asked: tuple[str, ...] = ()
    split: bool = False

    def __str__(self) -> str:
        if self.split:
            return (
                f"to {', '.join(self.asked)}, split, as {', '.join(self.partitions)}: {self.reason}"
            )
        if self.asked:
            return f"to {', '.join(self.asked)} at once: {self.reason}"
        how = f"straight, as {', '.join(self.partitions)}" if self.straight else "as it stands"
        return f"to {self.node}, {how}: {self.reason}"


@dataclass(frozen=True)
class Sent:
    """A statement that was sent, and where it went."""

    statement: str
    route: Route

    def __str__(self) -> str:
        return f"{self.route}\n{self.statement}"


def explain(router: Router, query: Query, params: Params) -> Route:
    """Where a statement would go now; nothing is sent."""
    plan = router.plan(query, with_parameters=params is not None)
    found = router.way(plan, params, "any")
    return Route(
        router.label(found.node),
        found.text is not None,
        found.parts,
        found.single,
        found.reason,
        None if found.text is None else found.text.decode(),
        tuple(router.label(node) for node, _ in found.asked),
        found.split,
    )
