"""move_part(part, dest, src): moves a copy of a partition to another worker while it is in use.

What it guarantees is in docs/commands/move_part.md; the instant that matters is steps/fence.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
from shardman.commands.copying import (
    KEYLESS,
    build_copy,
    identity_question,
    keyless,
    need_identity,
)
from shardman.commands.create_replica import join_steps, new_links
from shardman.commands.rm_replica import drop_steps, unlink_steps
from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@dataclass(frozen=True)
class MovePart:
    """Moves ``part_name`` to the worker ``dest``; ``src`` defaults to the primary's node."""

    name: ClassVar[str] = "move_part"

    part_name: str
    dest: int
    src: int | None = None

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        part_name, dest, src = opts
        assert part_name is not None and dest is not None
        return cls(part_name, int(dest), None if src is None else int(src))

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        primary = cluster.primaries.get(self.part_name)
        if primary is None:
            return frozenset({Claim("membership", shared=True)})
        return frozenset(
            {
                Claim("membership", shared=True),
                Claim(f"table {primary.relation}", shared=True),
                Claim(f"part {self.part_name}"),
                *({Claim("channels")} if cluster.replicas_of(self.part_name) else ()),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return identity_question(cluster, self.part_name)

    def source(self, cluster: Cluster) -> int:
        """The node to move from.

        Raises:
            UserError: the cluster's state forbids the move.
        """
        primary = cluster.primary(self.part_name)
        src = primary.owner if self.src is None else self.src
        owners = [c.owner for c in cluster.copies_of(self.part_name)]
        if src not in owners:
            raise UserError(
                f"node {src} has no copy of {self.part_name}",
                f"Leave src out, or give the node that has one: {', '.join(map(str, owners))}",
            )
        cluster.place(self.dest)
        if self.dest in owners:
            switch = (
                "Make that replica the primary with switch_primary, or choose another destination"
            )
            raise UserError(
                f"node {self.dest} has a copy of {self.part_name} already",
                switch if src == primary.owner != self.dest else "Choose another destination",
            )
        return src

    def plan(self, facts: Facts) -> Plan:
        src = self.source(facts.cluster)
        primary = facts.cluster.primary(self.part_name)
        identity = need_identity(facts, self.part_name, primary.owner)
        plan = self._primary if src == primary.owner else self._replica
        return plan(facts, src, identity)

    def _primary(self, facts: Facts, src: int, identity: str) -> Plan:
        dest, part, cmd = self.dest, self.part_name, facts.cmd_id
        relation = facts.cluster.primary(part).relation
        replicas = facts.cluster.replicas_of(part)
        both: dict[str, Json] = {"part": part, "src": src, "dest": dest}
        return Plan(
            prepare=(
                *build_copy(part, src, dest, identity),
                # Beside the comparison of both copies.
                Step("fresh_route", f"make the route on node {src}", both, beside=True),
                *new_links(facts.cluster, part, dest, replicas, identity),
                Step(
                    "fence_move",
                    f"switch {part} to node {dest}",
                    {**both, "old_links": list(replicas), "new_links": list(replicas)},
                ),
            ),
            switch=(Step("set_owner", f"record node {dest} as owner of {part}", both),),
            finish=(
                # The new primary last: until then every client waits or is forwarded.
                Step("commit_prepared", f"release node {src}", {"node": src, "cmd": cmd}),
                Step("commit_prepared", f"release node {dest}", {"node": dest, "cmd": cmd}),
                Step("end_subscription", f"end the stream on node {dest}", {"node": dest}),
                Step("end_publication", f"end the stream on node {src}", {"node": src}),
                *(s for r in replicas for s in unlink_steps(part, src, r)),
                # Behind these: where it fails, what holds up WAL or commits is gone already.
                Step("drop_old_copy", f"drop the old copy on node {src}", both),
                Step("converge", "tell all nodes", {"relation": relation}, beside=True),
                Step("end_fresh_route", f"use the plain route on node {src}", both),
            ),
            warnings=(keyless(part),) if identity in KEYLESS else (),
        )

    def _replica(self, facts: Facts, src: int, identity: str) -> Plan:
        """A new replica first, then the old one goes: there are never fewer than before."""
        dest, part = self.dest, self.part_name
        primary = facts.cluster.primary(part)
        return Plan(
            prepare=(
                *build_copy(part, primary.owner, dest, identity),
                *join_steps(facts.cluster, part, dest),
            ),
            switch=(
                Step(
                    "set_owner",
                    f"record node {dest} as owner of the replica",
                    {"part": part, "src": src, "dest": dest},
                ),
            ),
            finish=(
                Step("end_subscription", f"end the copy's stream on node {dest}", {"node": dest}),
                Step(
                    "end_publication",
                    f"end the copy's stream on node {primary.owner}",
                    {"node": primary.owner},
                ),
                *drop_steps(part, primary.owner, src),
                Step("converge", "tell all nodes", {"relation": primary.relation}),
            ),
            warnings=(keyless(part),) if identity in KEYLESS else (),
        )
