"""Lets nodes have the changes of the schema that others have.

A change travels in the sender's transaction, whose parts are committed one after the other. Where a crash
came in between, or a node was away, the rows of shardman.schema_changes say so, and a node that has the
change repeats it, as its sender, on one that lacks it. Where a table was renamed (shardman.renamed_tables), the
command that lets the metadata follow is submitted once more, should it be lost; so it is where a table was
shared in the transaction that made it, and the lord's metadata do not have it, or was dropped, and they have it
still, or changed, and the command that writes that down has failed. A shardlord that dies here
leaves nothing but what the next one finds: the change and the note that a node has it are one transaction.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog
from psycopg.types.json import Jsonb

from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.metadata import Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.policies.schema_changes import HAS_IT, PASSING, Change, Due, Key, Repeat, due
from shardman.lord.sessions import Sessions
from shardman.lord.watchers.readers import Readers
from shardman.lord.watchers.shared_gate import SharedGate
from shardman.pg.comparison import Changed, Unsettled
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.tasks import all_of

log = structlog.get_logger()

LOOK_EVERY_S = 1.5
#: What failed is tried again after so long, and then after twice that, and so on up to the longest.
AGAIN_S, LONGEST_S = 1.0, 60.0
#: How often it is looked for what was not written down.
REFRESH_EVERY_S = 5.0
#: How long one change may take on one node.
REPEAT_S = 120.0

Lacks = tuple[Key, int]


class SchemaChanges:
    """The look at the changes of one leadership."""

    def __init__(
        self, sessions: Sessions, askers: Askers, metadata: Metadata, health: NodeHealth
    ) -> None:
        self._sessions = sessions
        self._gate = SharedGate(Readers(sessions, askers))
        self._askers = askers
        self._metadata = metadata
        self._health = health
        self._lord: Connection
        #: What was lacking at the last look: what is just being committed is there at the next.
        self._seen: set[Lacks] = set()
        #: How often it was tried, when it is tried again, and what stood in the way.
        self._tried: dict[Lacks, tuple[int, float, str]] = {}
        self._told: dict[Lacks, tuple[str, str]] | None = None
        #: The tables that were called otherwise at the last look: former and new name.
        self._renamed: set[tuple[str, str]] = set()
        #: The tables that nodes shared by themselves, at the last look, and on which.
        self._made: set[tuple[int, str]] = set()
        #: The shared tables that DROP TABLE has dropped, at the last look.
        self._dropped: set[str] = set()
        #: When it was last looked for what was not written down.
        self._refreshed = 0.0

    async def run(self) -> None:
        """Looks until cancelled."""
        self._lord = await self._sessions.lord()
        try:
            while True:
                await self._look()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await self._lord.close()

    async def _look(self) -> None:
        cluster = self._metadata.known.cluster
        members, workers = set(cluster.members), {n.id for n in cluster.workers}
        silent = self._health.silent()
        found: dict[int, list[Change]] = {}
        renamed: set[tuple[str, str]] = set()
        made: set[tuple[int, str]] = set()
        dropped: set[str] = set()

        async def ask(node: int) -> None:
            rows = await self._try(node, "here")
            if rows is not None:
                found[node] = [_change(row) for row in rows]
            renamed.update((row[0], row[1]) for row in await self._try(node, "names") or ())
            if node in workers:
                made.update((node, row[0]) for row in await self._try(node, "made") or ())
                dropped.update(row[0] for row in await self._try(node, "dropped") or ())

        await all_of(*(ask(n) for n in members - silent))
        await self._follow(renamed)
        await self._record(made)
        await self._drop(dropped, workers)
        await self._refresh_again()
        work = due(found, members)
        for node, key in work.settle:
            await self._try(node, "settle", key.id, key.sender)
        for node, key in work.forget:
            await self._try(node, "forget", key.id, key.sender)
        await self._tell(work)
        await self._repeat(work)

    async def _follow(self, renamed: set[tuple[str, str]]) -> None:
        """Submits what was lost in a crash, or failed: what is just being done is seen once only."""
        for name in sorted(renamed & self._renamed):
            await self._lord.execute(queries("changes")["follow"].encode(), name)
        self._renamed = renamed

    async def _record(self, made: set[tuple[int, str]]) -> None:
        """The same of tables that nodes have shared by themselves."""
        for relation, node in sorted(
            {r: n for n, r in sorted(made & self._made, reverse=True)}.items()
        ):
            await self._lord.execute(queries("changes")["record"].encode(), (relation, node))
        self._made = made

    async def _drop(self, dropped: set[str], workers: set[int]) -> None:
        """The same of shared tables that are gone. The command drops what copies there are, so every worker has
        to say that it has none: one whose metadata are damaged is not believed alone."""
        for relation in sorted(dropped & self._dropped):
            copies = await all_of(*(self._try(n, "copy", relation) for n in workers))
            if all(rows and not rows[0][0] for rows in copies):
                await self._lord.execute(queries("changes")["drop"].encode(), (relation,))
        self._dropped = dropped

    async def _refresh_again(self) -> None:
        """The same of what DDL has made of tables. It is lost otherwise: new nodes are made of it."""
        now = time.monotonic()
        if now - self._refreshed >= REFRESH_EVERY_S:
            self._refreshed = now
            await self._lord.execute(queries("changes")["refresh_again"])

    async def _try(self, node: int, query: str, *params: Any) -> list[tuple[Any, ...]] | None:
        try:
            return await self._askers.ask(node, queries("changes")[query], *params)
        except (*NO_ANSWER, LordLost):
            return None

    async def _tell(self, work: Due) -> None:
        """Writes down what is pending, for status."""
        pending = {(c.key, n): (c.statement, "it does not answer") for c, n in work.waiting}
        for r in work.repeats:
            lacks = (r.change.key, r.node)
            if lacks in self._seen:
                reason = self._tried[lacks][2] if lacks in self._tried else "it is being given it"
                pending[lacks] = (r.change.statement, reason)
        if pending == self._told:
            return
        keys = [{"id": k.id, "sender": k.sender, "node": n} for k, n in pending]
        async with self._lord.transaction():
            await self._lord.execute(queries("changes")["not_pending"].encode(), (Jsonb(keys),))
            for (key, node), (statement, reason) in pending.items():
                await self._lord.execute(
                    queries("changes")["pending"].encode(),
                    (key.id, key.sender, node, statement, reason),
                )
        self._told = pending

    async def _repeat(self, work: Due) -> None:
        skipped = await self._skipped() if work.repeats else set()
        lacking = {(r.change.key, r.node) for r in work.repeats}
        self._tried = {k: v for k, v in self._tried.items() if k in lacking}
        held: set[tuple[int, tuple[str, str]]] = set()
        for r in work.repeats:
            lacks, queue = (r.change.key, r.node), (r.node, r.change.queue)
            if queue in held:
                continue
            if lacks not in self._seen or not await self._gets(r, skip=lacks in skipped):
                held.add(queue)
        self._seen = lacking

    async def _skipped(self) -> set[Lacks]:
        cur = await self._lord.execute(queries("changes")["skipped"].encode())
        return {(Key(row[0], row[1]), int(row[2])) for row in await cur.fetchall()}

    async def _gets(self, r: Repeat, *, skip: bool) -> bool:
        """Whether the node has it now."""
        lacks = (r.change.key, r.node)
        times, after, _ = self._tried.get(lacks, (0, 0.0, ""))
        if not skip and time.monotonic() < after:
            return False
        try:
            async with asyncio.timeout(REPEAT_S):
                reason = await (self._note(r) if skip else self._repeated(r))
        except NO_ANSWER as error:
            reason = str(error) or "no answer"
        if reason is None:
            self._tried.pop(lacks, None)
            log.info("schema change repeated", node=r.node, statement=r.change.statement)
            await self._write_down(r)
            return True
        if not times:
            log.warning(
                "schema change not repeated",
                node=r.node,
                statement=r.change.statement,
                reason=reason,
            )
        wait = min(LONGEST_S, AGAIN_S * 2**times)
        self._tried[lacks] = (times + 1, time.monotonic() + wait, reason)
        return False

    async def _write_down(self, r: Repeat) -> None:
        """Has the lord see what the tables are now."""
        tables, changes = list(r.change.tables), queries("changes")
        await self._lord.execute(changes["refresh"].encode(), (tables,))
        await self._lord.execute(
            changes["refresh_shared"].encode(), (r.change.tag, r.source, tables)
        )

    async def _repeated(self, r: Repeat) -> str | None:
        """What stood in the way; None: nothing."""
        table = self._metadata.known.cluster.shared.get(r.change.target)
        if table is not None and r.node not in table.nodes:
            return "it has no copy of the table that is in use, and gets it anew"
        try:
            async with self._gate.closed(table if r.change.tag != "DROP TABLE" else None):
                state, reason = await self._sent(r)
        except (Changed, Unsettled) as held:
            return f"it is tried again: {held}"
        if state in ("00000", HAS_IT):
            return None
        if not state.startswith(PASSING) and await self._is_there(r, state):
            return await self._note(r)
        return str(reason)

    async def _sent(self, r: Repeat) -> tuple[str, str | None]:
        """The state with which it ended, and the error."""
        conn = await self._sessions.open(r.source, self._lord)
        try:
            cur = await conn.execute(
                queries("changes")["repeat"].encode(),
                (r.change.key.id, r.change.key.sender, r.node),
            )
            return await cur.fetchone() or ("00000", None)
        finally:
            await conn.close()

    async def _is_there(self, r: Repeat, state: str) -> bool:
        """Whether the node is what the change makes it, though it did not come with the change."""
        if not r.change.tables:
            return r.change.is_there(state)
        shapes = [await self._try(n, "shapes", list(r.change.tables)) for n in (r.source, r.node)]
        return shapes[0] is not None and shapes[0] == shapes[1]

    async def _note(self, r: Repeat) -> str | None:
        key = r.change.key
        rows = await self._askers.ask(r.source, queries("changes")["whole"], key.id, key.sender)
        for row in rows:
            await self._askers.ask(r.node, queries("changes")["note"], Jsonb(row[0]))
        return None


def _change(row: tuple[Any, ...]) -> Change:
    id_, sender, statement, tag, target, tables, nodes, settled, made_at = row
    return Change(
        Key(id_, sender),
        statement,
        tag,
        target,
        tuple(tables),
        frozenset(nodes),
        settled,
        made_at,
    )
