"""Whether a replica's table can take what may be written to its primary."""

from __future__ import annotations

from shardman.errors import Code, UserError
from shardman.model.takes import Takes, refused
from shardman.pg.connection import Connection
from shardman.steps.base import Run


async def refuse_stricter(run: Run, part: str, src: int, dest: int) -> None:
    """Keeps a replica out of a channel that would stand still with the first row that it must refuse.

    Raises:
        UserError: the two tables differ.
    """
    primary, replica = [await _takes(await run.node(node), part) for node in (src, dest)]
    if primary is None or replica is None or (why := refused(primary, replica)) is None:
        return
    raise UserError(
        f"the replica of {part} on node {dest} could not follow its primary on node {src}: {why}",
        f"Bring the data table of {part} in line on one of the two nodes; or give the replica up with shardman"
        f" rm-replica {part} {dest}, and one that is made anew has what the table has",
        code=Code.COPIES_DIFFER,
    )


async def _takes(conn: Connection, part: str) -> Takes | None:
    cur = await conn.execute("select version, needs, rules from shardman.takes_of(%s)", (part,))
    if (row := await cur.fetchone()) is None:
        return None
    version, needs, rules = row
    return Takes(version, frozenset(needs), frozenset(rules))
