"""switch_primary(part, node): a replica and its primary change places, while both are in use.

No row is copied: under the cut-over all copies are the same. What it guarantees is in
docs/commands/replicas.md.
"""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import (
    identity_question,
    named,
    need_identities,
    release,
    tell,
    together,
    warnings,
)
from shardman.commands.create_replica import new_channels, replica_claims
from shardman.commands.rm_replica import close_channels, need_replica
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step


@verb
class SwitchPrimary(Command):
    """Makes the replica of ``part_name`` on ``node`` the primary, and the primary a replica."""

    name = "switch_primary"
    summary = "Make a replica the primary, and the primary a replica."

    part_name: str = argument("A partition, e.g. accounts_3.", kind=Kind.PARTITION)
    node: int = argument("The worker whose replica becomes the primary.", kind=Kind.NODE)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return replica_claims(cluster, self.part_name)

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return identity_question(cluster, self.part_name)

    def plan(self, facts: Facts) -> Plan:
        cluster, part, dest = facts.cluster, self.part_name, self.node
        primary = cluster.primary(part)
        src, replicas = primary.owner, cluster.replicas_of(part)
        if dest == src:
            raise UserError(
                f"node {dest} has the primary of {part} already", "", code=Code.IS_PRIMARY
            )
        stale = cluster.stale_replicas_of(part)
        if dest in stale:
            raise UserError(
                f"the replica of {part} on node {dest} does not follow its primary",
                "Bring it up to date with create_replica first",
                code=Code.REPLICA_STALE,
            )
        need_replica(cluster, part, dest)
        parts = cluster.rank(part)
        identities = need_identities(facts, parts, src)
        others = [r for r in replicas if r != dest]
        return Plan(
            prepare=(
                *new_channels(cluster, dest, [src, *others], identities),
                *(
                    Step(
                        "fresh_route",
                        f"make the route on node {src}",
                        {"part": each, "src": src, "dest": dest},
                    )
                    for each in parts
                ),
                Step(
                    "cut_over",
                    f"switch {named(parts)} to node {dest}",
                    {
                        **together(parts),
                        "src": src,
                        "dest": dest,
                        "old_channels": [dest, *others],
                        "new_channels": [src, *others],
                        "keep": True,
                    },
                ),
            ),
            switch=tuple(
                Step(
                    "set_order",
                    f"record node {dest} as owner of {each}",
                    {"part": each, "order": [dest, src, *others, *stale]},
                )
                for each in parts
            ),
            finish=(
                *release(src, dest, facts.cmd_id),
                *(s for r in (dest, *others) for s in close_channels(parts, src, r)),
                *tell(cluster, parts),
                Step(
                    "end_fresh_route",
                    f"use the plain route on node {src}",
                    {"part": part, "src": src, "dest": dest},
                ),
            ),
            warnings=warnings(identities),
        )
