"""What failed over DDL begins anew.

A table may be changed while a command works on it, and the metadata that the command goes by learn of it only
behind it, by a `refresh_table` that waits for its claims.
"""

from __future__ import annotations

from collections.abc import Iterable

from shardman.commands.base import Claim, Command
from shardman.commands.registry import COMMANDS, read
from shardman.lord.journal import Journal
from shardman.lord.scheduler import disturb
from shardman.model.cluster import Cluster


async def changes_behind(
    journal: Journal, cluster: Cluster, claims: Iterable[Claim]
) -> list[tuple[int, Command]]:
    """The commands that wait to write down what DDL has made of tables that a command works on, by id.

    Args:
        cluster: the metadata.
        claims: of the command that they wait for.
    """
    mine = list(claims)
    waiting = [
        (int(row["id"]), read(row["cmd_type"], row["options"]))
        for row in await journal.waiting()
        # Of a newer version there may be commands that this one does not know.
        if (verb := COMMANDS.get(row["cmd_type"])) and verb.follows_ddl and not row["canceled_by"]
    ]
    return [(cmd_id, each) for cmd_id, each in waiting if disturb(mine, each.claims(cluster))]
