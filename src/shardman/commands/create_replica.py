"""create_replica(part, dest): a further copy of a partition, at the end of its succession.

What it guarantees is in docs/commands/replicas.md; the instant that matters is
`steps.channels.join.JoinChannel`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import (
    KEYLESS,
    build_copy,
    end_copy_channel,
    identity_question,
    need_identities,
    rank_claims,
    renew_copy,
    tell,
    warnings,
)
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step


def replica_claims(cluster: Cluster, part_name: str) -> frozenset[Claim]:
    """What a command on a replica needs for itself. Channels are shared by partitions, so such
    commands run one after the other."""
    return rank_claims(cluster, part_name) | {Claim("channels")}


def channel_steps(src: int, dests: Sequence[int], sync: bool) -> tuple[Step, ...]:
    """Makes ready the ways from a primary's node to those of replicas."""
    nodes = ", ".join(map(str, dests))
    wait = Step(
        "standby_names",
        f"let commits on node {src} wait for node {nodes}",
        {"node": src, "also": list(dests)},
    )
    return (
        *(
            Step(
                "channel",
                f"open the channel from node {src} to node {dest}",
                {"src": src, "dest": dest},
            )
            for dest in dests
        ),
        *((wait,) if sync else ()),
    )


def registration(part: str, src: int, dest: int) -> Step:
    """Makes a partition known to a channel, which lets nothing of it through yet."""
    return Step(
        "register",
        f"register {part} in the channel to node {dest}",
        {"part": part, "src": src, "dest": dest},
    )


def _synchronous(cluster: Cluster, parts: Iterable[str]) -> bool:
    return any(cluster.table(cluster.primary(part).relation).sync for part in parts)


def new_channels(
    cluster: Cluster, primary: int, replicas: Sequence[int], identities: Mapping[str, str]
) -> tuple[Step, ...]:
    """Makes ready the ways from the node that is about to have the primaries of partitions: their replicas
    will hang on it.

    Args:
        identities: how the rows of each partition are identified on the primary of now.
    """
    if not replicas:
        return ()
    return (
        *(
            Step(
                "replica_identity",
                f"identify rows of {part} by all their columns on node {primary}",
                {"node": primary, "part": part, "former": "default"},
            )
            for part, identity in identities.items()
            if identity in KEYLESS
        ),
        *channel_steps(primary, replicas, _synchronous(cluster, identities)),
        *(registration(part, primary, r) for r in replicas for part in identities),
    )


def join_steps(
    cluster: Cluster, parts: Sequence[str], dest: int, *, renewed: bool = False
) -> tuple[Step, ...]:
    """Makes replicas of copies that `build_copy` has made, or `renew_copy`."""
    src = cluster.primary(parts[0]).owner
    alone = (
        Step("read_only", "let nobody else write to it", {"node": dest, "part": part})
        for part in parts
    )
    return (
        *(() if renewed else alone),
        *channel_steps(src, [dest], _synchronous(cluster, parts)),
        *(registration(part, src, dest) for part in parts),
        *(
            Step(
                "join_channel",
                f"hand {part} over to the channel",
                {"part": part, "src": src, "dest": dest},
            )
            for part in parts
        ),
    )


@verb
class CreateReplica(Command):
    """Makes a replica of ``part_name`` on the worker ``dest``, or lets one follow again that was left
    behind."""

    name = "create_replica"
    summary = "Make a further copy of a partition on a worker."

    part_name: str = argument("A partition, e.g. accounts_3.", kind=Kind.PARTITION)
    dest: int = argument("The worker that is to have it.", kind=Kind.NODE)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return replica_claims(cluster, self.part_name)

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """Also whether there is an old copy, of each partition; the answer is None where the node is away."""
        old = Question(
            "old copy",
            self.dest,
            "select bool_and(shardman.is_data_table(shardman.data_table(p)))"
            " from unnest(%s::text[]) as p",
            (list(cluster.rank(self.part_name)),),
        )
        stale = self.part_name in cluster.primaries and self.dest in cluster.stale_replicas_of(
            self.part_name
        )
        return (*identity_question(cluster, self.part_name), *((old,) if stale else ()))

    def plan(self, facts: Facts) -> Plan:
        cluster, part, dest = facts.cluster, self.part_name, self.dest
        primary = cluster.primary(part)
        stale = dest in cluster.stale_replicas_of(part)
        (cluster.worker if stale else cluster.place)(dest)
        if not stale and dest in (c.owner for c in cluster.copies_of(part)):
            raise UserError(
                f"node {dest} has a copy of {part} already",
                "Choose another destination",
                code=Code.COPY_EXISTS,
            )
        src, parts = primary.owner, cluster.rank(part)
        identities = need_identities(facts, parts, src)
        renewed = stale and facts.answers.get("old copy") is not False
        copy = renew_copy if renewed else build_copy
        return Plan(
            prepare=(
                *copy(src, dest, identities),
                *join_steps(cluster, parts, dest, renewed=renewed),
            ),
            switch=tuple(self._record(each, stale=stale) for each in parts),
            finish=(*end_copy_channel(src, dest), *tell(cluster, parts)),
            warnings=warnings(identities),
        )

    def _record(self, part: str, *, stale: bool) -> Step:
        dest = self.dest
        if stale:
            return Step(
                "set_fresh", f"record that node {dest} follows", {"part": part, "node": dest}
            )
        return Step("add_copy", f"record the replica on node {dest}", {"part": part, "dest": dest})
