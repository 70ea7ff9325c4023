"""What move_part and create_replica have in common: a second copy beside the running system.

All of this is done for partitions that go together (`Cluster.rank`): one snapshot, one copy channel, one
cut-over for all of them. Most often there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from shardman.commands.base import Claim, Facts, Question
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Step

#: Replica identities by which rows are found by all their columns: no key will do.
KEYLESS = ("default", "nothing", "full")


def rank_claims(cluster: Cluster, part: str) -> frozenset[Claim]:
    """What a command on a partition, and on those that go with it, needs for itself."""
    if part not in cluster.primaries:
        return frozenset({Claim("membership", shared=True)})
    parts = cluster.rank(part)
    return frozenset(
        {
            Claim("membership", shared=True),
            *(Claim(f"table {cluster.primary(p).relation}", shared=True) for p in parts),
            *(Claim(f"part {p}") for p in parts),
        }
    )


def group_claims(cluster: Cluster, relation: str) -> frozenset[Claim]:
    """What a command on all partitions of a table needs for itself: they go with those of others."""
    return frozenset(Claim(f"table {each}") for each in cluster.group(relation))


def together(parts: Sequence[str]) -> dict[str, Json]:
    """The args of a step that works on partitions at once."""
    first, *beside = parts
    return {"part": first, **({"beside": list[Json](beside)} if beside else {})}


def named(parts: Sequence[str]) -> str:
    """Partitions that go together, for people."""
    return ", ".join(parts)


def tell(cluster: Cluster, parts: Iterable[str]) -> tuple[Step, ...]:
    """Lets every node follow what has changed about partitions' tables."""
    relations = sorted({cluster.primary(part).relation for part in parts})
    return tuple(Step("converge", "tell all nodes", {"relation": r}) for r in relations)


def identity_question(cluster: Cluster, part: str) -> tuple[Question, ...]:
    """How the rows of a partition, and of those that go with it, are identified in a channel."""
    if part not in cluster.primaries:
        return ()
    return tuple(
        Question(
            f"identity {each}",
            cluster.primary(each).owner,
            "select shardman.replica_identity(shardman.data_table(%s))",
            (each,),
        )
        for each in cluster.rank(part)
    )


def need_identities(facts: Facts, parts: Sequence[str], src: int) -> dict[str, str]:
    """The answers to `identity_question`, by partition.

    Raises:
        UserError: the node could not be asked.
    """
    found: dict[str, str] = {}
    for part in parts:
        identity = facts.answers[f"identity {part}"]
        if identity is None:
            raise UserError(
                f"node {src}, which holds {part}, cannot be reached or lacks its data table",
                "Start the node and try again",
                code=Code.NODE_UNREACHABLE,
            )
        found[part] = str(identity)
    return found


def _keyless(part: str) -> str:
    """A warning."""
    return (
        f"{part} has no primary key: its rows are found by their whole content, which is slow; "
        "give the table one."
    )


def build_copy(src: int, dest: int, identities: Mapping[str, str]) -> tuple[Step, ...]:
    """Copies partitions and keeps the copies up to date through a copy channel.

    Args:
        identities: of the partitions, as `need_identities` gives them.
    """
    parts = list(identities)
    return (
        *_each("check_move", parts, src, dest, "check that node {dest} can have {part}"),
        *_publish(src, identities),
        *(
            Step("data_table", _make(dest, part, parts), {"node": dest, "part": part})
            for part in parts
        ),
        Step(
            "copy_rows",
            f"copy {named(parts)} from node {src} to node {dest}",
            {**together(parts), "src": src, "dest": dest},
        ),
        *(
            Step("data_indexes", _index(dest, part, parts), {"node": dest, "part": part})
            for part in parts
        ),
        *_follow(parts, src, dest),
    )


def renew_copy(src: int, dest: int, identities: Mapping[str, str]) -> tuple[Step, ...]:
    """As `build_copy`, where the destination has copies that were left behind."""
    parts = list(identities)
    return (
        *_each(
            "check_resync", parts, src, dest, "check that the old copy on node {dest} can be used"
        ),
        *_publish(src, identities),
        Step(
            "sync_rows",
            f"copy what differs from node {src} to node {dest}",
            {**together(parts), "src": src, "dest": dest},
        ),
        *_follow(parts, src, dest),
    )


def end_copy_channel(src: int, dest: int) -> tuple[Step, ...]:
    """Takes down, behind the switch, what carried the writes to a copy."""
    return (
        Step("end_subscription", f"end the copy channel on node {dest}", {"node": dest}),
        Step("end_publication", f"end the copy channel on node {src}", {"node": src}),
    )


def release(src: int, dest: int, cmd: int) -> tuple[Step, ...]:
    """Commits what the cut-over prepared. The new primary last: until then every client waits or is
    forwarded."""
    return tuple(
        Step("commit_prepared", f"release node {node}", {"node": node, "cmd": cmd})
        for node in (src, dest)
    )


def warnings(identities: Mapping[str, str]) -> tuple[str, ...]:
    """What is said of a plan that replicates the rows of partitions."""
    return tuple(_keyless(part) for part, identity in identities.items() if identity in KEYLESS)


def _make(dest: int, part: str, parts: Sequence[str]) -> str:
    return f"make the table on node {dest}" if len(parts) == 1 else f"make {part} on node {dest}"


def _index(dest: int, part: str, parts: Sequence[str]) -> str:
    of = "" if len(parts) == 1 else f" of {part}"
    return f"build indexes{of} on node {dest}"


def _each(kind: str, parts: Sequence[str], src: int, dest: int, title: str) -> tuple[Step, ...]:
    return tuple(
        Step(
            kind,
            title.format(part=part, dest=dest),
            {"part": part, "src": src, "dest": dest},
        )
        for part in parts
    )


def _publish(src: int, identities: Mapping[str, str]) -> tuple[Step, ...]:
    parts = list(identities)
    return (
        *(
            Step(
                "replica_identity",
                f"identify rows of {part} by all their columns",
                {"node": src, "part": part, "former": identity},
            )
            for part, identity in identities.items()
            if identity in ("default", "nothing")
        ),
        Step(
            "publication",
            f"publish {named(parts)} on node {src}",
            {"node": src, **together(parts)},
        ),
    )


def _follow(parts: Sequence[str], src: int, dest: int) -> tuple[Step, ...]:
    return (
        Step(
            "subscription",
            f"catch up with writes to {named(parts)}",
            {**together(parts), "src": src, "dest": dest},
        ),
        *_each("verify_copy", parts, src, dest, "compare both copies"),
        *(
            Step(
                "statistics",
                f"gather statistics on node {dest}",
                {"node": dest, "part": part},
            )
            for part in parts
        ),
    )
