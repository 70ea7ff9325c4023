"""All servers looked at, each by itself, all against each other, and the ways between them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from shardman.errors import Code, UserError
from shardman.nodes.doctor.comparison import compare, judge_server
from shardman.nodes.doctor.facts import Facts, connect, gather
from shardman.nodes.doctor.finding import Diagnosis, Level
from shardman.nodes.doctor.settings import Wanted, judge_settings
from shardman.nodes.doctor.ways import SLOW_S, Target, Way, try_way
from shardman.nodes.reach import Reach
from shardman.pg.conninfo import address, parse
from shardman.pg.wording import in_words

#: Of a table, where nobody has said.
PARTITIONS = 128
_ORDER = [*Level]


@dataclass(frozen=True)
class Examination:
    """What was looked at and found, the worst first."""

    servers: tuple[dict[str, Any], ...]
    ways: tuple[dict[str, Any], ...]
    findings: tuple[Diagnosis, ...]

    @property
    def healthy(self) -> bool:
        """Whether there is nothing but notes."""
        return all(f.level is Level.NOTE for f in self.findings)


async def examine(
    dsns: Sequence[str],
    *,
    nodes: int | None = None,
    partitions: int | None = None,
    sessions: int = 0,
) -> Examination:
    """Looks at servers; makes nothing that stays.

    Args:
        dsns: of servers that are to be nodes, or of any node of a cluster, which stands for all its nodes.
        nodes: how many there are to be; as many as there are.
        partitions: of the largest table there is to be.
        sessions: of clients, at the same time.

    Raises:
        UserError: a connection string cannot be read.
    """
    named = await _named(dsns)
    async with AsyncExitStack() as stack:
        looked = await asyncio.gather(*(_look(stack, *each) for each in named))
        lost = [each for each in looked if isinstance(each, Diagnosis)]
        seen = [each for each in looked if not isinstance(each, Diagnosis)]
        ways = await _ways([target for target, _ in seen])
    facts = [f for _, f in seen]
    largest = max((f.partitions for f in facts), default=0)
    wanted = Wanted(nodes or len(named), partitions or largest or PARTITIONS, sessions)
    found = [*lost, *_judge(facts, wanted), *_of_ways(ways)]
    found.sort(key=lambda f: _ORDER.index(f.level))
    return Examination(
        tuple(_described(f) for f in facts),
        tuple({"from": w.source, "to": w.target, "latency": w.latency} for w in ways),
        tuple(found),
    )


async def _named(dsns: Sequence[str]) -> list[tuple[str, str]]:
    """Names and connection strings of all servers that are meant."""
    named: dict[str, str] = {}
    for dsn in dsns:
        name = address(parse(dsn))
        members = await asyncio.to_thread(_members, dsn)
        for each, string in (members or {name: dsn}).items():
            if each in named and not members:
                raise UserError(f"{each} is named twice", code=Code.BAD_ARGUMENT)
            named[each] = string
    return list(named.items())


def _members(dsn: str) -> dict[str, str]:
    """The nodes of the cluster that a server is in; none where it is in none, or cannot be asked."""
    try:
        with Reach(dsn) as reach:
            return {f"node {n.id}": make_conninfo("", **reach.params(n.id)) for n in reach.members}
    except (UserError, psycopg.Error):
        return {}


async def _look(stack: AsyncExitStack, name: str, dsn: str) -> tuple[Target, Facts] | Diagnosis:
    try:
        conn = await stack.enter_async_context(await connect(dsn))
        facts = await gather(conn, name)
    except UserError as error:
        return Diagnosis(Level.ERROR, name, error.what, hint=error.hint)
    except psycopg.Error as error:
        said = in_words(error)
        return Diagnosis(Level.ERROR, name, said.what, hint=said.hint)
    return Target(facts.name, dsn, conn), facts


async def _ways(targets: Sequence[Target]) -> list[Way]:
    """One after the other: a session does one thing at a time, and what is measured is not disturbed."""
    return [
        await try_way(source, target)
        for source in targets
        for target in targets
        if source is not target
    ]


def _judge(facts: Sequence[Facts], wanted: Wanted) -> Iterator[Diagnosis]:
    for each in facts:
        yield from judge_server(each)
        yield from judge_settings(each, wanted)
    if facts:
        yield from compare(facts)


def _of_ways(ways: Sequence[Way]) -> Iterator[Diagnosis]:
    yield from (way.fault for way in ways if way.fault is not None)
    for way in ways:
        if way.latency is not None and way.latency > SLOW_S:
            yield Diagnosis(
                Level.NOTE,
                way.source,
                f"{way.latency * 1000:.1f} ms there and back to {way.target}: each statement that goes there"
                " takes several times that, and so does a commit that waits for a replica",
                hint="Place nodes near each other, or let clients go straight to rows (shardman.connect)",
            )


def _described(facts: Facts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "node": facts.node,
        "cluster": facts.said["cluster"],
        "version": facts.said["version"],
        "latency": facts.latency,
        "clock": facts.clock,
        "bytes": facts.said["bytes"],
        "free": facts.free,
        "encrypted": facts.said["ssl"],
    }
