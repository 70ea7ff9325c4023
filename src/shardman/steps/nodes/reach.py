"""Whether a new node and the others reach each other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import make_conninfo

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.steps.base import PrepareStep, Run, Scope, step
from shardman.steps.catalog import value
from shardman.steps.handed import NewServer
from shardman.tasks import all_of


@step("node_reaches")
@dataclass(frozen=True)
class NodeReaches(PrepareStep):
    """Whether the new node reaches all the others that are up, by the addresses they have."""

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        conn, lord = await run.node(self.node), await run.node(0)
        # One after the other: they share the new node's session.
        one_at_a_time = asyncio.Lock()

        async def look(other: int, _: Connection) -> None:
            async with one_at_a_time:
                options, password = await _address(lord, other)
                reason = await value(
                    conn,
                    "select shardman.try_node(%s, %s, %s, %s)",
                    *(json.dumps(options), password, run.cluster_id, other),
                )
            if reason is not None:
                where = "the lord's database" if other == 0 else f"node {other}"
                raise UserError(
                    f"the new node cannot reach {where} ({make_conninfo(**options)}): {reason}",
                    "Other nodes use that address: let the new one in there, or give the lord"
                    " another one by shardman init --advertise"
                    if other == 0
                    else "Other nodes use that address: let the new one in there",
                    code=Code.NODE_UNREACHABLE,
                )

        await at_all_nodes(run, look)


async def _address(lord: Connection, node: int) -> tuple[dict[str, str], str | None]:
    row = await (
        await lord.execute(
            "select n.options, s.password from shardman.nodes n"
            " left join shardman.node_secrets s on s.node_id = n.id where n.id = %s",
            (node,),
        )
    ).fetchone()
    assert row is not None
    return row[0], row[1]


async def reached_by_all(run: Run, conn: Connection, server: NewServer) -> None:
    """Every node that is up must reach the new server, and the server must be the one meant."""
    witness = await (
        await conn.execute(
            "select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()"
        )
    ).fetchone()
    assert witness is not None
    options = json.dumps(server.options)

    async def look(other: int, there: Connection) -> None:
        reason = await value(
            there,
            "select shardman.try_session(%s, %s, %s, %s)",
            *(options, server.password, *witness),
        )
        if reason is not None:
            raise UserError(
                f"node {other} cannot reach the new one: {reason}",
                "Give a connection string that works from every node",
                code=Code.NODE_UNREACHABLE,
            )

    await at_all_nodes(run, look)


async def at_all_nodes(run: Run, look: Callable[[int, Connection], Awaitable[None]]) -> None:
    """Does the same on every node that is up, the lord's included, all at once.

    Args:
        look: called with a node's id and a session there.
    """
    lord = await run.node(0)
    cur = await lord.execute(
        "select id from shardman.nodes where lord or worker_status = 'active' order by id"
    )

    async def one(other: int) -> None:
        try:
            there = await run.node(other)
        except (psycopg.OperationalError, UserError):
            return  # It is away; it will find the new node when it is back.
        await look(other, there)

    await all_of(*(one(int(row[0])) for row in await cur.fetchall()))
