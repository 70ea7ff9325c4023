"""Steps that give a node what is in no table: all of it to a new one, to others what a table is made of."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, PrepareStep, Run, Scope, step
from shardman.steps.catalog import value


@step("give_objects")
@dataclass(frozen=True)
class GiveObjects(FinishStep):
    """Views, functions, types, schemas and extensions of a node are made on another, where they are not there.
    What cannot be made is told: it may need what only the first one has."""

    leaves = "some of them made"

    node: int
    source: int

    def scope(self) -> Scope:
        return Scope.of([self.node, self.source])

    async def do(self, run: Run) -> None:
        source, conn = await run.node(self.source), await run.node(self.node)
        objects = await value(
            source, "select coalesce(jsonb_agg(to_jsonb(o)), '[]') from shardman.spread_objects() o"
        )
        failed = await value(conn, "select shardman.make_objects(%s)", Jsonb(objects))
        await conn.execute("select shardman.keep_needed()")
        for what in failed or ():
            run.say(f"On node {self.node}: {what}.")


@step("give_all_needed")
@dataclass(frozen=True)
class GiveAllNeeded(PrepareStep):
    """What the tables of some nodes are made of, types and functions, is made on a node that is being added. Of
    what it lacks then the steps say that make the tables."""

    leaves = "types and functions that tables need"
    clears = "undone with the schema"

    node: int
    sources: list[int]

    def scope(self) -> Scope:
        return Scope.of([self.node, *self.sources])

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        for source in self.sources:
            objects = await value(
                await run.node(source), "select shardman.objects_below(shardman.all_tables())"
            )
            await _need_same(await run.node(source), conn, self.node, objects)
            await conn.execute("select shardman.make_needed(%s)", (Jsonb(objects),))


async def _need_same(source: Connection, conn: Connection, node: int, objects: object) -> None:
    """What a node has already is what others have by its name: of an enum in another order rows are sorted
    otherwise there, and a domain with another check refuses rows that all others have.

    Args:
        objects: what some tables of the source are made of.
    """
    if not _alike(source, conn):
        return
    found = await value(conn, "select shardman.other_words(%s)", Jsonb(objects))
    if not found:
        return
    named = ", ".join(each["what"] for each in found)
    words = f"Elsewhere it is: {found[0]['there']}; there: {found[0]['here']}"
    raise UserError(
        f"node {node} has {named} otherwise than the nodes whose tables are made of that",
        f"Drop that there, or make it alike. {words}",
        code=Code.NAME_TAKEN,
    )


def _alike(one: Connection, other: Connection) -> bool:
    """Whether two servers write definitions in the same words."""
    return one.info.server_version // 10000 == other.info.server_version // 10000


@step("give_needed")
@dataclass(frozen=True)
class GiveNeeded(PrepareStep):
    """What a table of one node is made of, types and functions, is made on the others where it is missing, and
    so are those of its owner, whose DDL stayed on his node until he had such a table. Of what the table lacks
    says the step that checks whether they can have it."""

    leaves = "types and functions that the table needs there"

    nodes: list[int]
    source: int
    relation: str

    def scope(self) -> Scope:
        return Scope.of([*self.nodes, self.source])

    async def do(self, run: Run) -> None:
        source = await run.node(self.source)
        rel = "from shardman.find_relation(%s) as r (oid)"
        below = f"select shardman.objects_below(array[r.oid]) {rel}"
        owners = f"select shardman.objects_of_owner(r.oid) {rel}"
        needed = await value(source, below, self.relation)
        objects = needed + await value(source, owners, self.relation)
        for node in self.nodes:
            await _need_same(source, await run.node(node), node, needed)
        for node in self.nodes:
            conn = await run.node(node)
            await conn.execute("select shardman.make_objects(%s)", (Jsonb(objects),))


@step("give_views")
@dataclass(frozen=True)
class GiveViews(FinishStep):
    """Views of a table are made on another node, where all that they are made of is there. The others come with
    the last of their tables.

    Args:
        tell: say what could not be made; a lord that is no worker has no shared tables, so no views of them.
    """

    leaves = "some of them made"

    node: int
    source: int
    relation: str
    tell: bool = True

    def scope(self) -> Scope:
        return Scope.of([self.node, self.source])

    async def do(self, run: Run) -> None:
        source, conn = await run.node(self.source), await run.node(self.node)
        query = "select shardman.objects_below(shardman.views_above(%s))"
        objects = await value(source, query, self.relation)
        failed = await value(conn, "select shardman.make_objects(%s)", Jsonb(objects)) or ()
        for what in failed[:1] if self.tell else ():
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            run.say(f"On node {self.node}: {what}{more}.")
