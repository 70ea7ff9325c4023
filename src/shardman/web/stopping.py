"""Whether a node may be stopped now: pure, from the status alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from shardman.nodes.status import NodeStatus, Row, Status

#: Partitions that a sentence names.
NAMED = 3


@dataclass(frozen=True)
class Stop:
    """What would be if it were.

    Args:
        safe: no row would be out of reach for longer than a failover takes.
        short: a few words.
        words: the rest.
    """

    safe: bool
    short: str
    words: str


def stopping(now: Status, number: int) -> Stop:
    """What would be if a node were stopped now."""
    node = next((n for n in now.nodes if n.id == number), None)
    if node is None:
        return Stop(False, "?", "There is no such node.")
    if not node.up:
        return Stop(False, "it is away", "It does not answer: it may have been stopped already.")
    found = (
        _alone(now, node)
        or _last_living(now, node)
        or _nobody_would_act(now, node)
        or _of_lord(now, node)
        or (_with_primaries(node) if node.primaries else _without(node))
    )
    if now.commands:
        at_work = (
            " Commands are at work: those that need this node fail and are undone, or wait for it."
        )
        found = replace(found, words=found.words + at_work)
    return found


def _alone(now: Status, node: NodeStatus) -> Stop | None:
    alone = alone_on(now, node.id)
    if not alone:
        return None
    return Stop(
        False,
        f"no: {len(alone)} partitions only here",
        f"{len(alone)} of its {node.primaries} primaries have no replica that could take over: nobody could"
        f" reach their rows while it is away. {' '.join(_why_alone(now, alone))}",
    )


def _last_living(now: Status, node: NodeStatus) -> Stop | None:
    up = {n.id for n in now.nodes if n.up}
    last = [
        p["part_name"]
        for p in now.partitions
        if p["primary_on"] not in up
        and (set(p["replicas_on"]) & up) - set(p["stale_on"] or ()) == {node.id}
    ]
    if not last:
        return None
    return Stop(
        False,
        f"no: {len(last)} replicas are the last",
        f"Its replicas of {_named(last)} are the only copies that follow and whose node is there: the primary's"
        " is away. Wait until others are made, or bring that node back first.",
    )


def _why_alone(now: Status, alone: Sequence[str]) -> Iterator[str]:
    having = {
        p["part_name"]: ", ".join(map(str, p["replicas_on"]))
        for p in now.partitions
        if p["replicas_on"]
    }
    if hindered := [f"{p} on node {having[p]}" for p in alone if p in having]:
        yield (
            f"Of {len(hindered)} it is away, does not follow or is not waited for ({_named(hindered)}):"
            " bring it back first."
        )
    if bare := [p for p in alone if p not in having]:
        yield (
            f"{len(bare)} have none at all ({_named(bare)}): give the tables replicas (set_replevel), or move"
            " the partitions away (drain_node)."
        )


def _named(parts: Sequence[str]) -> str:
    return ", ".join(parts[:NAMED]) + (", …" if len(parts) > NAMED else "")


def _nobody_would_act(now: Status, node: NodeStatus) -> Stop | None:
    if not node.primaries:
        return None
    if now.shardlord is None or not now.shardlord.acting:
        return Stop(
            False,
            "no: no shardlord acts",
            "No shardlord acts, so no replica would take over. Start one: shardman lord LORD_DSN.",
        )
    workers = [n for n in now.nodes if "worker" in n.role]
    silent = 1 + sum(not n.up for n in workers)
    if silent >= 2 and 3 * silent >= 2 * len(workers):
        return Stop(
            False,
            "no: too many are away",
            f"{silent} of {len(workers)} workers would be away: the shardlord would suspect its own network,"
            " and let no replica take over. Bring the others back first.",
        )
    return None


def _of_lord(now: Status, node: NodeStatus) -> Stop | None:
    if "lord" not in node.role:
        return None
    if away := [str(n.id) for n in now.nodes if not n.up]:
        return Stop(
            False,
            "no: others are away",
            f"It has the lord's database, and node {', '.join(away)} is away: without it nothing takes over"
            " from there, and nothing follows what comes back.",
        )
    return Stop(
        not node.primaries,
        "no: its primaries cannot move" if node.primaries else "yes, without failover meanwhile",
        "It has the lord's database: while it is away no command runs and no replica takes over; all else"
        " goes on."
        + (
            f" Its own {node.primaries} primaries cannot be reached: switch them to other nodes before."
            if node.primaries
            else ""
        ),
    )


def _with_primaries(node: NodeStatus) -> Stop:
    return Stop(
        True,
        "yes, others take over",
        f"Replicas take over its {node.primaries} primaries when it is away for longer than failover_after;"
        " until then statements that need them fail, and commits that wait for its replicas do so."
        f" For a planned restart: shardman maintain {node.id}, so that it is no failover. To let nothing"
        " fail, switch its primaries to other nodes before (switch_primary).",
    )


def _without(node: NodeStatus) -> Stop:
    if node.replicas:
        return Stop(
            True,
            "yes, only replicas here",
            f"It has no primaries. Commits that wait for its {node.replicas} replicas do so until it is given"
            " up after failover_after.",
        )
    return Stop(
        True,
        "yes, nothing is here",
        "It has no copy of any partition. Its own clients are cut off, and writers of shared tables wait"
        " until the others go on without it.",
    )


def alone_on(now: Status, node: int) -> list[str]:
    """Primaries of a node that no replica would take over: there is none, or it does not follow, or commits
    do not wait for it, or its node is away, too."""
    up = {n.id for n in now.nodes if n.up}
    waited_for = {t["relation"] for t in now.tables if t["sync"]}
    return [
        p["part_name"]
        for p in now.partitions
        if p["primary_on"] == node and not _heirs(p, up, waited_for)
    ]


def _heirs(part: Row, up: Iterable[int], waited_for: Iterable[str]) -> set[int]:
    if part["relation"] not in waited_for:
        return set()
    return (set(part["replicas_on"]) & set(up)) - set(part["stale_on"] or ())
