"""The steps that let tables which were made again lie as those of their names did before DROP TABLE."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Json

from shardman.errors import Code, UserError
from shardman.model import layouts
from shardman.model.layouts import Job, Remembered
from shardman.steps.base import FinishStep, PrepareStep, Run, Scope, step
from shardman.steps.catalog import value

LOOK_S = 0.2
#: How long the transaction that has made the table may take until its node commits: the lord is first.
APPEARS_S = 10.0


async def _state(run: Run, node: int, relation: str) -> list[Remembered]:
    conn = await run.node(node)
    return layouts.read(await value(conn, "select shardman.layout_state(%s)", relation))


@step("await_layout")
@dataclass(frozen=True)
class AwaitLayout(PrepareStep):
    """Waits until a table that was made again, and those linked with it, have all keys that they had, and
    nobody is just writing to them; or until nothing has happened to them for a while."""

    leaves = "nothing"

    node: int
    relation: str

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        seen: Sequence[Remembered] = ()
        began = since = time.monotonic()
        while True:
            state = await _state(run, self.node, self.relation)
            now = time.monotonic()
            if not any(t.relation == self.relation and t.here for t in state):
                # Another command has done it; or it was dropped.
                if not state or now - began > APPEARS_S:
                    return
            elif state != seen or not layouts.is_free(state):
                since = now
            elif now - since > self._patience(state):
                return
            seen = state
            await run.waits_for(_in_words(state))
            await asyncio.sleep(LOOK_S)

    def _patience(self, state: Sequence[Remembered]) -> float:
        return layouts.SETTLED_S if layouts.is_whole(state) else layouts.QUIET_S


def _in_words(state: Sequence[Remembered]) -> str | None:
    lacks = [f"{t.relation} to be made again" for t in state if not t.here and not t.known]
    lacks += [f"{w} of {t.relation}" for t in state if t.here for w in t.lacks]
    return ", ".join(lacks) or None


@step("lay_again")
@dataclass(frozen=True)
class LayAgain(PrepareStep):
    """Submits the commands that share and shard the tables again, and follows each to its end.
    Foreign keys between tables that are sharded are noted down, dropped, and added when both are."""

    leaves = "tables of which some lie as they did, and others are plain"

    node: int
    relation: str
    members: list[int] = field(default_factory=list)

    def scope(self) -> Scope:
        return Scope.of(self.members)

    async def do(self, run: Run) -> None:
        state = await _state(run, self.node, self.relation)
        here = [t for t in state if t.here]
        if not here:
            return
        conn = await run.node(self.node)
        names = [t.relation for t in here if not t.shared]
        keys = await value(conn, "select shardman.references_to_part(%s)", names)
        try:
            for job in layouts.jobs(state, self.node):
                if job.verb == "create_hash_partitions":
                    await self._part(run, keys)
                await self._carry_out(run, job)
            await self._join(run, keys)
            for job in layouts.levels(here):
                await self._carry_out(run, job)
        except UserError as error:
            await self._join_plain(run, keys)
            for t in here:
                await conn.execute(
                    "select shardman.note_layout_failure(%s, %s)", (t.relation, error.what)
                )
            raise
        for t in here:
            lacks = f" without {', '.join(t.lacks)}" if t.lacks else ""
            run.say(f"{t.relation} is {t.layout['kind']} again{lacks}.")
        await conn.execute("select shardman.share_followers(%s)", ([t.relation for t in here],))
        await self._forget(run, [t.relation for t in here])

    async def _part(self, run: Run, keys: Sequence[Mapping[str, Any]]) -> None:
        """Takes the foreign keys between tables away that are to be sharded, in one transaction each, where
        they are not away yet."""
        conn = await run.node(self.node)
        for key in keys:
            await conn.execute(
                "select shardman.drop_reference(%s, %s)", (key["relation"], key["name"])
            )

    async def _join_plain(self, run: Run, keys: Sequence[Mapping[str, Any]]) -> None:
        """Gives them back where both tables have stayed plain."""
        conn = await run.node(self.node)
        plain = {t.relation for t in await _state(run, self.node, self.relation) if t.here}
        for key in keys:
            if {key["relation"], key["to"]} <= plain:
                await conn.execute(
                    "select shardman.join_plain(%s, %s, %s)",
                    (key["relation"], key["name"], key["definition"]),
                )

    async def _join(self, run: Run, keys: Sequence[Mapping[str, Any]]) -> None:
        conn = await run.node(self.node)
        for key in keys:
            options = {
                "relation": key["relation"],
                "constraint_name": key["name"],
                "definition": key["definition"],
            }
            await self._carry_out(run, Job("add_foreign_key", options))
            await conn.execute(
                "select shardman.forget_reference(%s, %s)", (key["relation"], key["name"])
            )

    async def _carry_out(self, run: Run, job: Job) -> None:
        lord = await run.node(0)
        options = Json({k: v for k, v in job.options.items() if v is not None})
        cmd_id = await value(
            lord,
            "select shardman.accept_because(%s, %s, %s)",
            job.verb,
            options,
            f"{self.relation} was made again",
        )
        while True:
            cur = await lord.execute(
                "select status::text, error from shardman.cmd_log where id = %s", (cmd_id,)
            )
            row = await cur.fetchone()
            status, error = row or ("failed", None)
            if status not in ("waiting", "in progress"):
                break
            await asyncio.sleep(LOOK_S)
        if status not in ("success", "done"):
            raise UserError(
                f"command {cmd_id} ({job.verb} of {job.options['relation']}) has {status}: {error}",
                f"Put that right, then: select shardman.restore_layout('{self.relation}', {self.node})",
                code=Code.TABLE_UNSUITABLE,
            )

    async def _forget(self, run: Run, relations: list[str]) -> None:
        for node in self.members:
            try:
                await (await run.node(node)).execute(
                    "select shardman.drop_layouts(%s)", (relations,)
                )
            except psycopg.OperationalError:
                # It forgets by itself, in time.
                continue


@step("drop_layout")
@dataclass(frozen=True)
class DropLayout(FinishStep):
    """A node forgets how a table lay."""

    leaves = "a node that remembers it for a while yet"

    node: int
    relation: str

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        await (await run.node(self.node)).execute(
            "select shardman.drop_layouts(%s)", ([self.relation],)
        )
