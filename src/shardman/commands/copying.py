"""What move_part and create_replica have in common: a second copy beside the running system."""

from __future__ import annotations

from shardman.commands.base import Facts, Question
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Step

#: Replica identities by which rows are found by all their columns: no key will do.
KEYLESS = ("default", "nothing", "full")


def identity_question(cluster: Cluster, part: str) -> tuple[Question, ...]:
    """How the rows of a partition are identified in a channel."""
    primary = cluster.primaries.get(part)
    if primary is None:
        return ()
    return (
        Question(
            "identity",
            primary.owner,
            "select shardman.replica_identity(shardman.data_table(%s))",
            (part,),
        ),
    )


def need_identity(facts: Facts, part: str, src: int) -> str:
    """The answer to `identity_question`.

    Raises:
        UserError: the node could not be asked.
    """
    identity = facts.answers["identity"]
    if identity is None:
        raise UserError(
            f"node {src}, which holds {part}, cannot be reached or lacks its data table",
            "Start the node and try again",
            code=Code.NODE_UNREACHABLE,
        )
    return str(identity)


def _keyless(part: str) -> str:
    """A warning."""
    return (
        f"{part} has no primary key: its rows are found by their whole content, which is slow; "
        "give the table one."
    )


def build_copy(part: str, src: int, dest: int, identity: str) -> tuple[Step, ...]:
    """Copies a partition and keeps the copy up to date through a copy channel.

    Args:
        identity: the answer to `identity_question`.
    """
    both: dict[str, Json] = {"part": part, "src": src, "dest": dest}
    there: dict[str, Json] = {"node": dest, "part": part}
    return (
        Step("check_move", f"check that node {dest} can have {part}", both),
        *_publish(part, src, identity),
        Step("data_table", f"make the table on node {dest}", there),
        Step("copy_rows", f"copy {part} from node {src} to node {dest}", both),
        Step("data_indexes", f"build indexes on node {dest}", there),
        *_follow(part, both),
    )


def renew_copy(part: str, src: int, dest: int, identity: str) -> tuple[Step, ...]:
    """As `build_copy`, where the destination has a copy that was left behind."""
    both: dict[str, Json] = {"part": part, "src": src, "dest": dest}
    return (
        Step(
            "check_resync",
            f"check that the old copy on node {dest} can be used",
            both,
        ),
        *_publish(part, src, identity),
        Step("sync_rows", f"copy what differs from node {src} to node {dest}", both),
        *_follow(part, both),
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


def warnings(part: str, identity: str) -> tuple[str, ...]:
    """What is said of a plan that replicates the rows of a partition."""
    return (_keyless(part),) if identity in KEYLESS else ()


def _publish(part: str, src: int, identity: str) -> tuple[Step, ...]:
    by_whole_rows = Step(
        "replica_identity",
        f"identify rows of {part} by all their columns",
        {"node": src, "part": part, "former": identity},
    )
    return (
        *((by_whole_rows,) if identity in ("default", "nothing") else ()),
        Step("publication", f"publish {part} on node {src}", {"node": src, "part": part}),
    )


def _follow(part: str, both: dict[str, Json]) -> tuple[Step, ...]:
    return (
        Step("subscription", f"catch up with writes to {part}", both),
        Step("verify_copy", "compare both copies", both),
        Step(
            "statistics",
            f"gather statistics on node {both['dest']}",
            {"node": both["dest"], "part": part},
        ),
    )
