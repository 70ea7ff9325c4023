"""What failover and rm_node have in common: other nodes take over what a node had."""

from __future__ import annotations

from collections.abc import Sequence

from shardman.commands.base import Facts
from shardman.commands.reachability import answering, unproven
from shardman.model.plan import Json, Plan, Step
from shardman.model.succession import Succession, succeed

#: So many partitions are named in an error or a result: enough for one node's share of a table.
NAMED = 100


def heirs(facts: Facts, dead: int, accept_data_loss: bool = False) -> Succession:
    """Who takes over from a node, by the answers to `reachability.who_answers`."""
    alive = [n for n in answering(facts) if n != dead]
    return succeed(facts.cluster, dead, alive, accept_data_loss, unproven(facts, dead))


def cut_steps(facts: Facts, dead: int, after: Succession) -> tuple[Step, ...]:
    """The cut-over against the dead node, should it still run: without its subscribers it cannot
    acknowledge a write. One that is away cuts nothing, and is not needed: a commit waits for all."""
    return tuple(
        Step(
            "cut_channel",
            f"let node {node} take nothing more from node {dead}",
            {"node": node, "of": dead},
        )
        for node in after.subscribers
        if facts.answers.get(f"answers {node}")
    )


def record_step(dead: int, after: Succession, leaves: bool = False) -> Step:
    """The decision.

    Args:
        leaves: the node is no member any more, so it can have no replica that is stale.
    """
    return Step(
        "succeed",
        f"record who takes over from node {dead}",
        {
            "dead": dead,
            "promoted": {part: list(order) for part, order in after.promoted.items()},
            "stale": [[p, n] for p, n in after.stale if not (leaves and n == dead)],
            "dropped": [[p, n] for p, n in after.stale if leaves and n == dead],
        },
    )


def record_steps(dead: int, after: Succession, leaves: bool = False) -> tuple[Step, ...]:
    """All that is decided."""
    taken_over = after.promoted or after.stale
    relations: list[Json] = list(after.suspended)
    return (
        *((record_step(dead, after, leaves),) if taken_over else ()),
        *(
            (
                Step(
                    "suspend_shared",
                    f"record that shared tables are written without node {dead}",
                    {"node": dead, "relations": relations},
                ),
            )
            if relations
            else ()
        ),
    )


def returned_step(dead: int, after: Succession, leaves: bool = False) -> Step:
    """What the dead node does once it can be reached. Before that its commits must go on waiting:
    whoever still writes to its old primaries would be told that it was done."""
    replicas = [part for part, node in after.stale if node == dead] if leaves else []
    return Step(
        "returned",
        f"set aside what node {dead} holds",
        _at(
            dead,
            promoted=list[Json](sorted(after.promoted)),
            replicas=list[Json](replicas),
            publishers=list(after.publishers),
            subscribers=list(after.subscribers),
        ),
    )


def takeover_steps(dead: int, after: Succession) -> tuple[Step, ...]:
    """What the nodes of the new primaries do, and those whose commits waited for the dead node."""
    heirs = {part: order[0] for part, order in after.promoted.items()}
    return (
        *(
            Step(
                "settle_standby_names",
                f"let commits on node {node} wait for its replicas only",
                {"node": node},
            )
            for node in after.publishers
        ),
        *(
            Step(
                "end_parts",
                f"end what is prepared on node {node} of clients' transactions on node {dead}",
                _at(node, of=dead),
            )
            for node in after.subscribers
        ),
        *(
            (
                Step(
                    "promote",
                    f"make {counted(list(heirs))} primaries",
                    {"parts": list[Json](heirs), "heirs": list[Json](heirs.values())},
                ),
            )
            if heirs
            else ()
        ),
    )


def parting_steps(dead: int, after: Succession) -> tuple[Step, ...]:
    """What is left of the channels from and to the dead node goes. No client waits for that."""
    return (
        *(
            Step(
                "retire_channel",
                f"let node {node} have no channel from node {dead}",
                _at(node, of=dead, parts=list[Json](sorted(after.promoted))),
            )
            for node in after.subscribers
        ),
        *(
            Step(
                "drop_publisher",
                f"drop the channel to node {dead} on node {node}",
                _at(node, to=dead),
            )
            for node in after.publishers
        ),
    )


def tell_step(after: Succession) -> Step:
    """Lets the other nodes go to the new primaries."""
    return Step("converge", "tell all nodes", {"promoted": list[Json](sorted(after.promoted))})


def takeover(facts: Facts, dead: int, after: Succession, *, removed: bool) -> Plan:
    """The plan by which others take over from a node.

    Args:
        removed: it is no member any more. Otherwise what is left to do there waits until it is back.
    """
    return Plan(
        prepare=cut_steps(facts, dead, after),
        switch=record_steps(dead, after, leaves=removed),
        finish=(
            *takeover_steps(dead, after),
            # Clients on other nodes wait until they are led elsewhere.
            tell_step(after),
            *parting_steps(dead, after),
            *(
                ()
                if removed or not (after.promoted or after.stale)
                else (returned_step(dead, after),)
            ),
        ),
        warnings=said(facts, dead, after),
        data=outcome(after),
    )


def outcome(after: Succession) -> dict[str, Json]:
    """What becomes of the partitions, for programs: the nodes of the new primaries by partition, which of them
    may lack writes, and which partitions nobody has any more."""
    found: dict[str, Json] = {
        "promoted": {part: order[0] for part, order in sorted(after.promoted.items())},
        "lossy": list[Json](after.lossy),
        "unreachable": list[Json](after.stuck),
    }
    return {name: value for name, value in found.items() if value}


def said(facts: Facts, dead: int, after: Succession) -> tuple[str, ...]:
    """What becomes of the partitions, for the command's result."""
    told = []
    if after.promoted:
        told.append(f"Replicas take over {counted(list(after.promoted))}.")
    told += [_loss(facts, dead, part, after.promoted[part][0]) for part in after.lossy]
    if after.suspended:
        told.append(
            f"Shared tables are written without node {dead}, which gets them anew when it is back."
        )
    if after.stuck:
        told.append(
            f"Cannot be reached without node {dead}, for they have no replica that may take over: "
            f"{counted(list(after.stuck))}."
        )
    doubts = unproven(facts, dead)
    told += [
        f"{part} on node {node} is not believed: {fault}."
        for (part, node), fault in sorted(doubts.items())[:NAMED]
    ]
    return tuple(told)


def _loss(facts: Facts, dead: int, part: str, heir: int) -> str:
    copy = next(c for c in facts.cluster.copies_of(part) if c.owner == heir)
    if copy.stale_since is not None:
        return f"{part} on node {heir} lacks what was written since {copy.stale_since:%F %T %Z}."
    upto = facts.answers.get(f"upto {heir}")
    known = f" It has what node {dead} wrote up to {upto} of its WAL." if upto else ""
    return f"{part} on node {heir} is asynchronous and may lack the last writes.{known}"


def counted(parts: Sequence[str]) -> str:
    """How many partitions, and the names of the first."""
    named = ", ".join(parts[:NAMED]) + (", …" if len(parts) > NAMED else "")
    return f"{len(parts)} partition{'s' if len(parts) > 1 else ''} ({named})"


def _at(node: int, **args: Json) -> dict[str, Json]:
    return {"node": node, **args}
