"""move_part(part, dest, src): moves a copy of a partition to another worker while it is in use.

What it guarantees is in docs/commands/move_part.md; the instant that matters is steps/cut_over.py.
"""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import (
    build_copy,
    end_copy_channel,
    identity_question,
    need_identity,
    release,
    warnings,
)
from shardman.commands.create_replica import join_steps, new_channels
from shardman.commands.rm_replica import close_channel_steps, drop_steps
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@verb
class MovePart(Command):
    """Moves ``part_name`` to the worker ``dest``; ``src`` defaults to the primary's node."""

    name = "move_part"
    summary = "Move a partition to another worker, while it is read and written."

    part_name: str = argument("A partition, e.g. accounts_3.", kind=Kind.PARTITION)
    dest: int = argument("The worker that is to have it.", kind=Kind.NODE)
    src: int | None = argument(
        "Move the copy on this node; the primary's if not given.", kind=Kind.NODE, default=None
    )

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
        primary = facts.cluster.primary(self.part_name)
        identity = need_identity(facts, self.part_name, primary.owner)
        plan = self._primary if src == primary.owner else self._replica
        return plan(facts, src, identity)

    def _primary(self, facts: Facts, src: int, identity: str) -> Plan:
        dest, part = self.dest, self.part_name
        relation = facts.cluster.primary(part).relation
        replicas = facts.cluster.replicas_of(part)
        both: dict[str, Json] = {"part": part, "src": src, "dest": dest}
        return Plan(
            prepare=(
                *build_copy(part, src, dest, identity),
                Step("fresh_route", f"make the route on node {src}", both),
                *new_channels(facts.cluster, part, dest, replicas, identity),
                Step(
                    "cut_over",
                    f"switch {part} to node {dest}",
                    {**both, "old_channels": list(replicas), "new_channels": list(replicas)},
                ),
            ),
            switch=(Step("set_owner", f"record node {dest} as owner of {part}", both),),
            finish=(
                *release(src, dest, facts.cmd_id),
                *end_copy_channel(src, dest),
                *(s for r in replicas for s in close_channel_steps(part, src, r)),
                # Behind these: where it fails, what holds up WAL or commits is gone already.
                Step("drop_old_copy", f"drop the old copy on node {src}", both),
                Step("converge", "tell all nodes", {"relation": relation}),
                Step("end_fresh_route", f"use the plain route on node {src}", both),
            ),
            warnings=warnings(part, identity),
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
                *end_copy_channel(primary.owner, dest),
                *drop_steps(part, primary.owner, src),
                Step("converge", "tell all nodes", {"relation": primary.relation}),
            ),
            warnings=warnings(part, identity),
        )
