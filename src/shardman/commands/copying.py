"""What move_part and create_replica have in common: a second copy beside the running system."""

from __future__ import annotations

from shardman.commands.base import Facts, Question
from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Step

#: Replica identities by which rows are found by all their columns: no key will do.
KEYLESS = ("default", "nothing", "full")


def identity_question(cluster: Cluster, part: str) -> tuple[Question, ...]:
    """How the rows of a partition are identified in its stream."""
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
        )
    return str(identity)


def keyless(part: str) -> str:
    """A warning."""
    return (
        f"{part} has no primary key: its rows are found by their whole content, which is slow; "
        "give the table one."
    )


def build_copy(part: str, src: int, dest: int, identity: str) -> tuple[Step, ...]:
    """Copies a partition and keeps the copy up to date by a stream of the command's own.

    Args:
        identity: the answer to `identity_question`.
    """
    both: dict[str, Json] = {"part": part, "src": src, "dest": dest}
    there: dict[str, Json] = {"node": dest, "part": part}
    return (
        Step("check_move", f"check that node {dest} can have {part}", both),
        *_publish(part, src, identity),
        Step("data_table", f"make the table on node {dest}", there, beside=True),
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
            {"part": part, "dest": dest},
        ),
        *_publish(part, src, identity),
        Step("sync_rows", f"copy what differs from node {src} to node {dest}", both),
        *_follow(part, both),
    )


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
            beside=True,
        ),
    )
