"""move_part(part, dest, src): moves a copy of a partition to another worker while it is in use.

What it guarantees is in docs/commands/move_part.md; the instant that matters is steps/cut_over.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import (
    build_copy,
    end_copy_channel,
    identity_question,
    named,
    need_identities,
    rank_claims,
    release,
    tell,
    together,
    warnings,
)
from shardman.commands.create_replica import join_steps, new_channels
from shardman.commands.rm_replica import close_channels, drop_steps
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@verb
class MovePart(Command):
    """Moves ``part_name``, and what goes with it, to the worker ``dest``; ``src`` defaults to the primary's
    node."""

    name = "move_part"
    summary = "Move a partition to another worker, while it is read and written."

    part_name: str = argument("A partition, e.g. accounts_3.", kind=Kind.PARTITION)
    dest: int = argument("The worker that is to have it.", kind=Kind.NODE)
    src: int | None = argument(
        "Move the copy on this node; the primary's if not given.", kind=Kind.NODE, default=None
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        claims = rank_claims(cluster, self.part_name)
        replicas = self.part_name in cluster.primaries and cluster.replicas_of(self.part_name)
        return claims | {Claim("channels")} if replicas else claims

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
                code=Code.NO_SUCH_COPY,
            )
        cluster.place(self.dest)
        if self.dest in owners:
            switch = (
                "Make that replica the primary with switch_primary, or choose another destination"
            )
            raise UserError(
                f"node {self.dest} has a copy of {self.part_name} already",
                switch if src == primary.owner != self.dest else "Choose another destination",
                code=Code.COPY_EXISTS,
            )
        return src

    def plan(self, facts: Facts) -> Plan:
        src = self.source(facts.cluster)
        owner = facts.cluster.primary(self.part_name).owner
        identities = need_identities(facts, facts.cluster.rank(self.part_name), owner)
        plan = self._primary if src == owner else self._replica
        return plan(facts, src, identities)

    def _primary(self, facts: Facts, src: int, identities: Mapping[str, str]) -> Plan:
        dest, parts = self.dest, list(identities)
        replicas = facts.cluster.replicas_of(self.part_name)
        both: dict[str, Json] = {**together(parts), "src": src, "dest": dest}
        return Plan(
            prepare=(
                *build_copy(src, dest, identities),
                *(
                    Step(
                        "fresh_route",
                        f"make the route on node {src}",
                        {"part": part, "src": src, "dest": dest},
                    )
                    for part in parts
                ),
                *new_channels(facts.cluster, dest, replicas, identities),
                Step(
                    "cut_over",
                    f"switch {named(parts)} to node {dest}",
                    {**both, "old_channels": list(replicas), "new_channels": list(replicas)},
                ),
            ),
            switch=self._record(parts, src, "record node {dest} as owner of {part}"),
            finish=(
                *release(src, dest, facts.cmd_id),
                *end_copy_channel(src, dest),
                *(s for r in replicas for s in close_channels(parts, src, r)),
                # Behind these: where it fails, what holds up WAL or commits is gone already.
                Step("drop_old_copy", f"drop the old copy on node {src}", both),
                *tell(facts.cluster, parts),
                Step(
                    "end_fresh_route",
                    f"use the plain route on node {src}",
                    {"part": self.part_name, "src": src, "dest": dest},
                ),
            ),
            warnings=warnings(identities),
        )

    def _replica(self, facts: Facts, src: int, identities: Mapping[str, str]) -> Plan:
        """A new replica first, then the old one goes: there are never fewer than before."""
        dest, parts = self.dest, list(identities)
        primary = facts.cluster.primary(self.part_name)
        return Plan(
            prepare=(
                *build_copy(primary.owner, dest, identities),
                *join_steps(facts.cluster, parts, dest),
            ),
            switch=self._record(parts, src, "record node {dest} as owner of the replica"),
            finish=(
                *end_copy_channel(primary.owner, dest),
                *drop_steps(parts, primary.owner, src),
                *tell(facts.cluster, parts),
            ),
            warnings=warnings(identities),
        )

    def _record(self, parts: Sequence[str], src: int, title: str) -> tuple[Step, ...]:
        return tuple(
            Step(
                "set_owner",
                title.format(dest=self.dest, part=part),
                {"part": part, "src": src, "dest": self.dest},
            )
            for part in parts
        )
