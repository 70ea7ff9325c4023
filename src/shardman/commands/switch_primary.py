"""switch_primary(part, node): a replica and its primary change places, while both are in use.

No row is copied: under the fence all copies are the same. What it guarantees is in
docs/commands/replicas.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
from shardman.commands.copying import KEYLESS, identity_question, keyless, need_identity
from shardman.commands.create_replica import new_links, replica_claims
from shardman.commands.rm_replica import need_replica, unlink_steps
from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@dataclass(frozen=True)
class SwitchPrimary:
    """Makes the replica of ``part_name`` on ``node`` the primary, and the primary a replica."""

    name: ClassVar[str] = "switch_primary"

    part_name: str
    node: int

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        part_name, node = opts
        assert part_name is not None and node is not None
        return cls(part_name, int(node))

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return replica_claims(cluster, self.part_name)

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return identity_question(cluster, self.part_name)

    def plan(self, facts: Facts) -> Plan:
        cluster, part, dest, cmd = facts.cluster, self.part_name, self.node, facts.cmd_id
        primary = cluster.primary(part)
        src, replicas = primary.owner, cluster.replicas_of(part)
        if dest == src:
            raise UserError(f"node {dest} has the primary of {part} already", "")
        stale = cluster.stale_replicas_of(part)
        if dest in stale:
            raise UserError(
                f"the replica of {part} on node {dest} does not follow its primary",
                "Bring it up to date with create_replica first",
            )
        need_replica(cluster, part, dest)
        identity = need_identity(facts, part, src)
        others = [r for r in replicas if r != dest]
        both: dict[str, Json] = {"part": part, "src": src, "dest": dest}
        return Plan(
            prepare=(
                *new_links(cluster, part, dest, [src, *others], identity),
                Step("fresh_route", f"make the route on node {src}", both),
                Step(
                    "fence_move",
                    f"switch {part} to node {dest}",
                    {
                        **both,
                        "old_links": [dest, *others],
                        "new_links": [src, *others],
                        "keep": True,
                    },
                ),
            ),
            switch=(
                Step(
                    "set_order",
                    f"record node {dest} as owner of {part}",
                    {"part": part, "order": [dest, src, *others, *stale]},
                ),
            ),
            finish=(
                # The new primary last: until then every client waits or is forwarded.
                Step("commit_prepared", f"release node {src}", {"node": src, "cmd": cmd}),
                Step("commit_prepared", f"release node {dest}", {"node": dest, "cmd": cmd}),
                *(s for r in (dest, *others) for s in unlink_steps(part, src, r)),
                Step("converge", "tell all nodes", {"relation": primary.relation}),
                Step("end_fresh_route", f"use the plain route on node {src}", both),
            ),
            warnings=(keyless(part),) if identity in KEYLESS else (),
        )
