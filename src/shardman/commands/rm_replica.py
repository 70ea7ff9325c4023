"""rm_replica(part, node): a replica is given up. Its primary has every row of it."""

from __future__ import annotations

from collections.abc import Sequence

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import tell
from shardman.commands.create_replica import replica_claims
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


def close_channels(parts: Sequence[str], src: int, dest: int) -> tuple[Step, ...]:
    """Ends the way from a node to replicas that do not hang on it any more. Commits stop waiting
    first, so nobody hangs on a replica that is down."""
    pair: dict[str, Json] = {"src": src, "dest": dest}
    return (
        Step(
            "settle_standby_names",
            f"let commits on node {src} wait for its replicas only",
            {"node": src},
        ),
        *(
            Step(
                "leave_channel",
                f"take {part} out of the channel to node {dest}",
                {**pair, "part": part},
            )
            for part in parts
        ),
        Step(
            "end_channel", f"close the channel from node {src} to node {dest} if it is empty", pair
        ),
    )


def drop_steps(parts: Sequence[str], primary: int, node: int) -> tuple[Step, ...]:
    """Drops replicas that the metadata does not name any more."""
    *unlink, close = close_channels(parts, primary, node)
    return (
        *unlink,
        *(
            Step(
                "drop_replica",
                f"drop the replica on node {node}",
                {"node": node, "part": part, "primary": primary},
            )
            for part in parts
        ),
        close,
    )


def need_replica(cluster: Cluster, part: str, node: int) -> None:
    """Raises UserError when a node has no replica of a partition."""
    nodes = [c.owner for c in cluster.succession(part)[1:]]
    if node not in nodes:
        has = ", ".join(map(str, nodes)) or "none"
        raise UserError(
            f"node {node} has no replica of {part}",
            f"The nodes that have one: {has}",
            code=Code.NO_SUCH_COPY,
        )


@verb
class RmReplica(Command):
    """Drops the replica of ``part_name`` on ``node``."""

    name = "rm_replica"
    summary = "Drop the replica of a partition on a worker."

    part_name: str = argument("A partition, e.g. accounts_3.", kind=Kind.PARTITION)
    node: int = argument("The worker that has it.", kind=Kind.NODE)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return replica_claims(cluster, self.part_name)

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """Whether the primary is there: without it a replica may be the last copy."""
        primary = cluster.primaries.get(self.part_name)
        if primary is None:
            return ()
        return (
            Question(
                "primary",
                primary.owner,
                "select bool_and(shardman.is_in_use(shardman.data_table(p)))"
                " from unnest(%s::text[]) as p",
                (list(cluster.rank(self.part_name)),),
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        cluster, part, node = facts.cluster, self.part_name, self.node
        primary = cluster.primary(part)
        if node == primary.owner:
            raise UserError(
                f"the copy of {part} on node {node} is the primary",
                "Move it away with move_part if the node is to be without it",
                code=Code.IS_PRIMARY,
            )
        need_replica(cluster, part, node)
        if not facts.answers.get("primary"):
            raise UserError(
                f"the primary of {part} on node {primary.owner} cannot be reached, so the replica"
                f" on node {node} may be the last copy",
                f"Start node {primary.owner}, or let the replica take over with failover",
                code=Code.LAST_COPY,
            )
        parts = cluster.rank(part)
        return Plan(
            switch=tuple(
                Step(
                    "remove_copy",
                    f"record that node {node} has no replica",
                    {"part": each, "owner": node},
                )
                for each in parts
            ),
            finish=(*drop_steps(parts, primary.owner, node), *tell(cluster, parts)),
        )
