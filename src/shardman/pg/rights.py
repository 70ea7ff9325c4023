"""What the cluster's role must be allowed to do on a server where it is no superuser."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.pg.conninfo import password_of
from shardman.sql.loader import queries

#: Since then subscriptions may belong to a role that is no superuser, and who may make roles cannot become any.
ORDINARY_FROM = 160000


@dataclass(frozen=True)
class Right:
    """One that is missing.

    Args:
        what: as in the table of docs/operations.md.
        give: the statement by which a superuser gives it, in the node's database.
    """

    what: str
    give: str


async def missing(conn: Connection) -> list[Right]:
    """The rights that the session's role lacks in this database; none where it is a superuser."""
    password = password_of(conn) is not None
    cur = await conn.execute(queries("rights")["missing"], (password,))
    return [Right(*row) for row in await cur.fetchall()]


async def require(conn: Connection) -> None:
    """Raises UserError when the session's role lacks a right: names all, and what gives them."""
    lacking = await missing(conn)
    if not lacking:
        return
    role = conn.info.user
    if conn.info.server_version < ORDINARY_FROM:
        raise UserError(
            f"the role {role} is not a superuser, and the server is PostgreSQL 15",
            "Connect as a superuser there: before 16 nobody else can make subscriptions, and a role that may"
            " make others may become any of them",
            code=Code.SERVER_UNSUITABLE,
        )
    raise UserError(
        f"the role {role} lacks rights on the server: {', '.join(right.what for right in lacking)}",
        "Let a superuser run, in that database: " + "; ".join(right.give for right in lacking),
        code=Code.SERVER_UNSUITABLE,
    )
