"""Copies of prepared parts on the nodes that take over: with channels in two phases a part that was prepared
on the dead node is prepared on those with its replicas, under a name of PostgreSQL's.

What becomes of one was decided on the first node of its transaction, and is known there and wherever the
channels of that node have brought it. It is rolled back only when nobody can decide any more
(docs/decisions/0054).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql

from shardman.errors import Code, Temporary, UserError
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.catalog import value

#: How long those that may decide are waited for, and after which they are ended, in seconds.
DECIDE_S = 1.0
GONE_S = 5.0


@step("end_parts")
@dataclass(frozen=True)
class EndParts(FinishStep):
    """Ends the copies on one node of what was prepared on the dead one: commits what was decided, and rolls the
    rest back when nobody can decide on it any more. They lock what is to be made a primary.

    Args:
        of: the dead node.
    """

    leaves = "transactions prepared on that node, and what they lock"
    concurrent_with = frozenset({"end_parts"})

    node: int
    of: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        ended = await end_copies(run, self.node, self.of)
        # Where the channel goes on, for others follow over it, it will bring the end of each once more.
        conn = await run.node(self.node)
        for gid in ended:
            await conn.execute("begin")
            await conn.execute(sql.SQL("prepare transaction {}").format(sql.Literal(gid)))


async def knows_decisions(conn: Connection) -> bool:
    """Whether a node has the table of decisions. One of a former version has not: a channel that brings it
    rows would stand still."""
    known = "select to_regclass('shardman.client_decisions') is not null"
    return bool(await value(conn, known))


async def end_copies(run: Run, node: int, of: int) -> list[str]:
    """Ends what a cut channel has left prepared; the names.

    Raises:
        Temporary: a node has not answered that may know what was decided, or decide.
    """
    conn = await run.node(node)
    if not await knows_decisions(conn):
        return []
    cur = await conn.execute(queries("transactions")["left_prepared"], (of,))
    left = {str(xid): str(gid) for gid, xid in await cur.fetchall()}
    names = list(left.values())
    if not left:
        return []
    members, silent = await _members(run, of)
    await _commit_decided(conn, members, left, of)
    if left and not silent:
        await _await_decisions(members)
        await _commit_decided(conn, members, left, of)
        await _roll_back(run, conn, of, left)
    if left:
        raise Temporary(
            f"node {node} holds {len(left)} transactions that were prepared on node {of}, and node"
            f" {min(silent)} may have their outcome and does not answer",
            code=Code.NODE_UNREACHABLE,
        )
    return names


async def _members(run: Run, of: int) -> tuple[dict[int, Connection], set[int]]:
    """Sessions on those who may know; and those who may decide, or know, and do not answer."""
    lord = await run.node(0)
    members, silent = {}, set()
    for member in await value(lord, queries("transactions")["members"]):
        # Of what was prepared on it others have decided. One that all was taken over from may come back with
        # what it has decided, but that counts only where it has arrived.
        if (
            member == of
            or await value(lord, queries("transactions")["place"], member) == "elsewhere"
        ):
            continue
        try:
            conn = await run.node(member)
            if await knows_decisions(conn):
                members[member] = conn
                continue
        except (psycopg.OperationalError, UserError, Temporary):
            pass
        silent.add(member)
    return members, silent


async def _commit_decided(
    conn: Connection, members: Mapping[int, Connection], left: dict[str, str], of: int
) -> None:
    for member in members.values():
        for xid in await value(member, queries("transactions")["parts_decided"], of, [*left]):
            await _end(conn, "commit", left.pop(xid))


async def _roll_back(run: Run, conn: Connection, of: int, left: dict[str, str]) -> None:
    """What nobody has committed. It is written down before: the dead node is to do the same when it is back,
    and what an application has prepared is told by the name that it knows."""
    known = await value(
        await run.node(0), queries("transactions")["note_lost"], of, [*left], run.cmd_id
    )
    for gid in left.values():
        await _end(conn, "rollback", gid)
    left.clear()
    if known:
        run.say(
            f"What applications had prepared on node {of} and not committed is rolled back:"
            f" {', '.join(known)}."
        )


async def roll_back_lost(run: Run, conn: Connection, node: int) -> None:
    """On a node that is back: rolls back what was where others have taken over, so that it has one outcome.

    Args:
        conn: a session on the node.
    """
    lord = await run.node(0)
    lost = await value(lord, "select shardman.lost_of(%s)", node)
    if not lost:
        return
    cur = await conn.execute(queries("transactions")["lost_here"], (lost,))
    for gid, role, xid in await cur.fetchall():
        await lord.execute("select shardman.name_lost_part(%s, %s, %s, %s)", (node, xid, gid, role))
        await end_as(conn, "rollback", gid, role)
    await lord.execute("select shardman.end_lost_parts(%s)", (node,))


async def end_as(conn: Connection, verb: str, gid: str, role: str) -> None:
    """Commits or rolls back what a role has prepared: only that role may, or a superuser.

    Raises:
        psycopg.errors.UndefinedObject: it has ended.
    """
    changes = await value(conn, queries("transactions")["whose"], role)
    if changes:
        await conn.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    try:
        await conn.execute(sql.SQL(f"{verb} prepared {{}}").format(sql.Literal(gid)))
    finally:
        if changes:
            await conn.execute("reset role")


async def _await_decisions(members: Mapping[int, Connection]) -> None:
    """Until whoever could decide now has, or is gone. Who begins later has no part on the dead node."""
    for member in members.values():
        before = set(await value(member, queries("transactions")["deciding"]))
        begun = time.monotonic()
        while before.intersection(await value(member, queries("transactions")["deciding"])):
            if time.monotonic() - begun > GONE_S:
                raise Temporary(
                    "sessions that may decide on what is prepared cannot be ended",
                    code=Code.LOCK_TIMEOUT,
                )
            if time.monotonic() - begun > DECIDE_S:
                await member.execute(queries("transactions")["end_deciding"], ([*before],))
            await asyncio.sleep(0.02)


async def _end(conn: Connection, verb: str, gid: str) -> None:
    with suppress(psycopg.errors.UndefinedObject):
        await conn.execute(sql.SQL(f"{verb} prepared {{}}").format(sql.Literal(gid)))
