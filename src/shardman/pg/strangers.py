"""Nothing is adopted by its name: what has a name of ours and is somebody else's is told, and left alone.

Ours is what belongs to the owner of the schema shardman, or to a superuser, who needs no trap. Before there is
a schema it is what belongs to whoever makes it.
"""

from __future__ import annotations

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.sql.loader import queries


async def refuse_publication(conn: Connection, name: str) -> None:
    """Raises UserError when a publication of this name is a stranger's."""
    await _refuse(conn, "publication", name, f"alter publication {name} rename to …")


async def refuse_subscription(conn: Connection, name: str) -> None:
    """Raises UserError when a subscription of this name is a stranger's."""
    await _refuse(conn, "subscription", name, f"alter subscription {name} rename to …")


async def refuse_slot(conn: Connection, name: str) -> None:
    """Raises UserError when the server has a slot of this name that can be none of ours; none has an owner."""
    await _refuse(conn, "slot", name, f"select pg_drop_replication_slot('{name}')")


async def refuse_all(conn: Connection, node: int, name: str) -> None:
    """Raises UserError when anything of this name is there already: nothing of ours can have it yet, for it
    bears the number of the command that asks."""
    cur = await conn.execute(queries("strangers")["anything"], {"name": name})
    if (row := await cur.fetchone()) is not None:
        what, remedy = row
        raise UserError(
            f"node {node} has {what}",
            f"The name is needed by this command: drop it if nobody needs it ({remedy}), or call the command"
            " again, which needs another name then",
            code=Code.NAME_TAKEN,
        )


async def refuse_schema(conn: Connection) -> None:
    """Raises UserError when the schema shardman, or something in it, is a stranger's: who owns a function that
    others call can change it at any time."""
    await _refuse(conn, "schema", None, "alter schema shardman rename to …")


async def refuse_servers(conn: Connection) -> None:
    """Raises UserError when a foreign server with a name of ours is a stranger's."""
    await _refuse(conn, "servers", None, "alter server … rename to …")


async def _refuse(conn: Connection, query: str, name: str | None, remedy: str) -> None:
    params = None if name is None else (name,)
    cur = await conn.execute(queries("strangers")[query], params)
    row = await cur.fetchone()
    if row is not None and row[0] is not None:
        where, what = row
        raise UserError(
            f"{where} has {what}",
            _way_out(query, remedy),
            code=Code.SCHEMA_CONFLICT if query == "schema" else Code.NAME_TAKEN,
        )


def _way_out(query: str, remedy: str) -> str:
    if query == "slot":
        return f"The name is needed: drop it if nobody needs it ({remedy})"
    free = (
        "The name is needed, and nothing is done with what is not the cluster's: rename it"
        f" ({remedy}), or drop it if nobody needs it"
    )
    # Whoever else makes or changes something there makes it his: the cluster's role could not change it later.
    return (
        f"Connect as that role if it is the cluster's. Otherwise: {free}"
        if query == "schema"
        else free
    )
