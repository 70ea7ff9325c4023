"""All nodes, asked at once: what one viewer or a hundred cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from psycopg.conninfo import make_conninfo

from shardman.errors import UserError
from shardman.metrics.catalog import METRICS
from shardman.metrics.node import SLOW_EVERY_S, NodeAsker, Value
from shardman.nodes.reach import Reach
from shardman.pg.wording import in_words

log = structlog.get_logger()

#: A scrape waits no longer than this for the nodes, in seconds; the others' last values go out with their age.
PATIENCE_S = 2.5
#: What was asked a moment ago is not asked again.
FRESH_S = 1.0
#: How often the list of nodes is read, and how long that is waited for.
MEMBERS_EVERY_S = 30.0
MEMBERS_PATIENCE_S = 2.5
#: What says how old the answer to a query is.
_AGES = {"node": "node_age_seconds", "node_slow": "node_details_age_seconds"}
#: Tables that have values of their own; the first by name.
TABLES = 200


@dataclass(frozen=True)
class Member:
    """A node, and how to reach it. ``params`` may hold a password."""

    id: int
    role: str
    lord: bool
    params: dict[str, Any]


def _members(dsns: list[str]) -> list[Member]:
    """The nodes, as the first that answers has them.

    Raises:
        UserError: none does.
    """
    error: UserError | None = None
    for dsn in dsns:
        try:
            with Reach(dsn) as reach:
                return [
                    Member(n.id, _role(n.lord, n.status), n.lord, _complete(reach, n.id))
                    for n in reach.members
                ]
        except UserError as failed:
            error = error or failed
        except psycopg.Error as failed:
            error = error or in_words(failed)
    assert error is not None
    raise error


def _complete(reach: Reach, node: int) -> dict[str, Any]:
    params = reach.params(node)
    if node == reach.my_id:
        # Of several hosts that were named, the one that this node is on.
        params |= {"host": reach.here.info.host, "port": str(reach.here.info.port)}
        params.pop("hostaddr", None)
    return params


def _role(lord: bool, status: str | None) -> str:
    return ("lord, worker" if status is not None else "lord") if lord else "worker"


class Sampler:
    """What is known of a cluster, brought up to date when somebody wants to know.

    Args:
        dsn: of any node; several hosts in it are tried in their order.
        partitions: with values of each partition.
        details_every_s: how often what looks at every partition is asked, in seconds.
    """

    def __init__(
        self, dsn: str, *, partitions: bool = False, details_every_s: float = SLOW_EVERY_S
    ) -> None:
        self._dsn = dsn
        self._limits = {"partitions": partitions, "tables": TABLES}
        self._details_every_s = details_every_s
        self._members: dict[int, Member] = {}
        self._members_at: float | None = None
        self._told = ""
        self._reading: asyncio.Task[list[Member]] | None = None
        self._askers: dict[int, NodeAsker] = {}
        self._lock = asyncio.Lock()
        self._sampled_at: float | None = None
        self._took_s = 0.0

    async def read_members(self) -> None:
        """Reads the list of nodes now.

        Raises:
            UserError: nobody gives it.
        """
        await self._take(await asyncio.to_thread(_members, [self._dsn]))

    async def sample(self, *, slowly: bool = False) -> list[Value]:
        """All values. Whoever comes while they are asked for gets the same.

        Args:
            slowly: wait for what is asked now and then, too.
        """
        async with self._lock:
            began = time.monotonic()
            if slowly or self._sampled_at is None or began - self._sampled_at > FRESH_S:
                await self._follow_members()
                await self._ask_all(slowly=slowly)
                self._sampled_at = time.monotonic()
                self._took_s = self._sampled_at - began
            return list(self._values())

    async def _ask_all(self, *, slowly: bool) -> None:
        patience = 60.0 if slowly else PATIENCE_S
        asked = [a.ask(patience, slowly=slowly) for a in self._askers.values()]
        await asyncio.gather(*asked)

    async def _follow_members(self) -> None:
        """Reads the list of nodes where that is due. Who reads it for long is one thread."""
        now = time.monotonic()
        due = self._members_at is None or now - self._members_at > MEMBERS_EVERY_S
        if self._reading is None and due:
            known = [make_conninfo("", **m.params) for m in self._members.values()]
            self._reading = asyncio.create_task(
                asyncio.to_thread(_members, [self._dsn, *known]), name="members"
            )
        if self._reading is None:
            return
        # Those who are known are asked meanwhile.
        await asyncio.wait({self._reading}, timeout=0.0 if self._members else MEMBERS_PATIENCE_S)
        if self._reading.done():
            read, self._reading = self._reading, None
            try:
                await self._take(read.result())
            except UserError as error:
                if self._told != error.what:
                    log.warning("cannot read the list of nodes", error=error.what)
                    self._told = error.what

    async def _take(self, members: list[Member]) -> None:
        self._members = {m.id: m for m in members}
        self._members_at, self._told = time.monotonic(), ""
        for gone in self._askers.keys() - self._members.keys():
            await self._askers.pop(gone).leave()
        for member in members:
            asker = self._askers.setdefault(
                member.id, NodeAsker(member.id, self._limits, self._details_every_s)
            )
            asker.params = member.params
            asker.lead(member.lord)

    def _values(self) -> Iterator[Value]:
        now = time.monotonic()
        yield Value("sample_duration_seconds", {}, self._took_s)
        if self._members_at is not None:
            yield Value("membership_age_seconds", {}, now - self._members_at)
        for node, asker in self._askers.items():
            answers, label = asker.answers, {"node": str(node)}
            yield Value("node", {**label, "role": self._members[node].role}, 1)
            yield Value("node_up", label, float(answers.up))
            for part, name in _AGES.items():
                if part in answers.at:
                    yield Value(name, label, now - answers.at[part])
            for values in answers.parts.values():
                yield from (_labelled(v) for v in values)

    async def close(self) -> None:
        """Ends all sessions."""
        for asker in self._askers.values():
            await asker.leave()


def _labelled(value: Value) -> Value:
    """With the labels that the metric has and no others."""
    wanted = METRICS[value.name].labels
    return Value(value.name, {k: v for k, v in value.labels.items() if k in wanted}, value.value)
