"""move_part(part, dest, src): moves a copy of a partition to another worker while it is in use.

What it guarantees is in docs/commands/move_part.md; the instant that matters is steps/fence.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
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
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        primary = cluster.primaries.get(self.part_name)
        if primary is None:
            return ()
        return (
            Question(
                "identity",
                primary.owner,
                "select shardman.replica_identity(shardman.data_table(%s))",
                (self.part_name,),
            ),
        )

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
        cluster.worker(self.dest)
        if self.dest in owners:
            raise UserError(
                f"node {self.dest} has a copy of {self.part_name} already",
                "Choose another destination",
            )
        if src != primary.owner:
            raise UserError(
                f"the copy of {self.part_name} on node {src} is a replica",
                "Moving replicas is not supported yet",
            )
        return src

    def plan(self, facts: Facts) -> Plan:
        src, dest, part, cmd = (
            self.source(facts.cluster),
            self.dest,
            self.part_name,
            facts.cmd_id,
        )
        both: dict[str, Json] = {"part": part, "src": src, "dest": dest}
        identity = facts.answers["identity"]
        if identity is None:
            raise UserError(
                f"node {src}, which holds {part}, cannot be reached or lacks its data table",
                "Start the node and try again",
            )
        keyless = identity in ("default", "nothing")
        by_whole_rows = Step(
            "replica_identity",
            f"identify rows of {part} by all their columns",
            {"node": src, "part": part, "former": identity},
        )
        return Plan(
            prepare=(
                Step("check_move", f"check that {part} can move to node {dest}", both),
                *((by_whole_rows,) if keyless else ()),
                Step("publication", f"publish {part} on node {src}", {"node": src, "part": part}),
                Step("data_table", f"make the table on node {dest}", {"node": dest, "part": part}),
                Step("copy_rows", f"copy {part} from node {src} to node {dest}", both),
                Step("data_indexes", f"build indexes on node {dest}", {"node": dest, "part": part}),
                Step("subscription", f"catch up with writes to {part}", both),
                Step("verify_copy", "compare both copies", both),
                Step("fresh_route", f"make the route on node {src}", both),
                Step("fence_move", f"switch {part} to node {dest}", both),
            ),
            switch=(Step("set_owner", f"record node {dest} as owner of {part}", both),),
            finish=(
                # The new primary last: until then every client waits or is forwarded.
                Step("commit_prepared", f"release node {src}", {"node": src, "cmd": cmd}),
                Step("commit_prepared", f"release node {dest}", {"node": dest, "cmd": cmd}),
                Step("end_subscription", f"end the stream on node {dest}", {"node": dest}),
                Step("end_publication", f"end the stream on node {src}", {"node": src}),
                Step("drop_old_copy", f"drop the old copy on node {src}", both),
                Step(
                    "converge",
                    "tell all nodes",
                    {"relation": facts.cluster.primary(part).relation},
                ),
                Step("end_fresh_route", f"use the plain route on node {src}", both),
            ),
            warnings=(_keyless(part),) if keyless or identity == "full" else (),
        )


def _keyless(part: str) -> str:
    return (
        f"{part} has no primary key: its rows are found by their whole content, which is slow; "
        "give the table one."
    )
