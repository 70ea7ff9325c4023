"""Watches the workers, and has the partitions of dead ones taken over.

Each worker is probed on a session of its own. Unknown is not dead: nodes that stream from a silent one are
asked before anything is done about it. What is decided is in `policies.nodes`.

Nothing here is written down. A shardlord that dies while a node is silent leaves nothing; the next one
begins to count anew, so the failover comes later by what the first had counted. Once `failover` is
submitted it is a command as any other: it is in `cmd_log`, and the next shardlord runs it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import psycopg
import structlog

from shardman import names
from shardman.lord.ask import ANSWER_S, NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.metadata import Known, Metadata
from shardman.lord.policies.nodes import NodeHealth, Verdict
from shardman.lord.sessions import NotTheNode, Sessions
from shardman.lord.watchers.looks import Looks
from shardman.pg.wording import plain
from shardman.sql.loader import queries
from shardman.tasks import all_of, pause

log = structlog.get_logger()

#: How often a node is probed.
PROBE_EVERY_S = 0.25
#: How often it has to prove that it can write.
PROVE_EVERY_S = 2.0
#: How often it is looked whether the reserve of sessions on a node is whole.
HOLD_EVERY_S = 10.0
#: How a node says that it cannot.
CANNOT_WRITE = (psycopg.errors.DiskFull, psycopg.errors.IoError)


class Nodes:
    """Watches the workers of one leadership.

    Args:
        health: what is known of them, for everybody who wants to know.
        fail_over: submits a failover of a node, with the reason, and waits for its end.
    """

    def __init__(
        self,
        sessions: Sessions,
        metadata: Metadata,
        health: NodeHealth,
        fail_over: Callable[[int, str], Awaitable[None]],
    ) -> None:
        self._sessions = sessions
        self._metadata = metadata
        self._health = health
        self._fail_over = fail_over
        self._askers = Askers(sessions)
        #: When a node was asked for a proof that it can write.
        self._proved: dict[int, float] = {}
        self._replicated_nodes: frozenset[int] = frozenset()
        self._replicated_in: Known | None = None
        self._suspicion: str | None = None
        #: Nodes at whose addresses copies of them answer.
        self._copied: set[int] = set()

    async def run(self) -> None:
        """Watches until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                probes = Looks(group, "probe of node", self._probe, self._askers.leave)
                reserves = Looks(group, "reserve of node", self._hold)
                while True:
                    workers = {n.id for n in self._metadata.known.cluster.workers}
                    self._health.keep(workers)
                    probes.keep(workers)
                    reserves.keep(workers - self._health.silent())
                    await self._judge(group)
                    # A verdict is due some time behind a probe: at a tick it would just be missed.
                    calm = self._health.calm
                    await (pause(PROBE_EVERY_S) if calm else asyncio.sleep(PROBE_EVERY_S))
        finally:
            await self._askers.close()

    async def _probe(self, node: int) -> float:
        asked = time.monotonic()
        try:
            await self._look(node, asked)
        except LordLost:
            pass  # Where it is the lord's database that does not answer nothing is known of the node.
        except CANNOT_WRITE as error:
            self._health.cannot_write(node, asked, plain(error))
        except NO_ANSWER as error:
            if isinstance(error, NotTheNode):
                self._copied.add(node)
            self._health.unanswered(node, asked)
        else:
            self._copied.discard(node)
            self._health.answered(node)
        return PROBE_EVERY_S

    async def _hold(self, node: int) -> float:
        """Keeps some sessions for commands, for when the node has no connection left."""
        lord = await self._sessions.lord()
        try:
            await self._sessions.hold(node, await self._sessions.address(node, lord))
        except NO_ANSWER:
            pass  # Whoever needs it says so; there may be room the next time.
        finally:
            await self._sessions.give_back(lord)
        return HOLD_EVERY_S

    async def _look(self, node: int, asked: float) -> None:
        """Asks for a sign of life; now and then, and always where the last one was in vain, for a proof that
        the node can write."""
        due = asked - self._proved.get(node, 0.0) >= PROVE_EVERY_S
        if not (self._health.is_sick(node) or (due and node in self._replicated())):
            await self._askers.ping(node)
            return
        self._proved[node] = asked
        await self._askers.ask(node, queries("watch")["can_write"])

    def _replicated(self) -> frozenset[int]:
        """The nodes for which others wait, or from which others could take over."""
        known = self._metadata.known
        if known is not self._replicated_in:
            several = Counter(copy.part_name for copy in known.cluster.copies)
            nodes = (c.owner for c in known.cluster.copies if several[c.part_name] > 1)
            self._replicated_nodes, self._replicated_in = frozenset(nodes), known
        return self._replicated_nodes

    async def _judge(self, group: asyncio.TaskGroup) -> None:
        if self._health.calm:
            return
        known = self._metadata.known
        verdict = self._health.judge(known.cluster, known.settings.failover_after, time.monotonic())
        if verdict.candidates:
            # What is taken over, and by whom, is decided by what is so now.
            known = await self._metadata.read()
            after = known.settings.failover_after
            verdict = self._health.judge(known.cluster, after, time.monotonic())
        await self._tell(verdict.suspicion)
        for node in verdict.dead:
            self._sessions.sever(node)
        for node in verdict.candidates:
            if not await self._is_heard(known.cluster.id, node, verdict):
                reason = self._health.begin(node, verdict.alive, time.monotonic())
                log.warning("node dead", node=node, reason=reason)
                group.create_task(self._replace(node, reason), name=f"failover of node {node}")
                return

    async def _tell(self, suspicion: str | None) -> None:
        """Writes a suspicion down, where status finds it. It stays there when the shardlord dies, until
        the next one takes the lease."""
        if suspicion == self._suspicion:
            return
        if suspicion is not None:
            log.warning("nothing is done", reason=suspicion)
        self._suspicion = suspicion
        lord = await self._sessions.lord()
        try:
            await lord.execute("update shardman.lease set suspicion = %s", (suspicion,))
        finally:
            await lord.close()

    async def _replace(self, node: int, reason: str) -> None:
        await self._fail_over(node, reason)
        if self._health.is_sick(node):
            await self._let_go(node)
        self._health.ended(node, time.monotonic())

    async def _let_go(self, node: int) -> None:
        """Those whose commits hang on a node that was replaced, and whoever waits for them elsewhere, would
        hang until it can write again: nobody acknowledges them."""
        try:
            await self._askers.ask(node, "select shardman.evict_waiting_commits()")
        except (*NO_ANSWER, LordLost) as error:
            log.warning("commits hang on a node that was replaced", node=node, error=str(error))

    async def _is_heard(self, cluster_id: str, node: int, verdict: Verdict) -> bool:
        """Whether a node that is silent here still speaks to one that is not. The failover that follows
        ends the channels that were asked about, so one that wakes up in between is not acknowledged."""
        if self._health.is_sick(node) or node in self._copied:
            return False  # What others hear is no life of the node's.
        answers = await all_of(
            *(
                self._hears(peer, names.channel(cluster_id, node, peer))
                for peer in sorted(verdict.alive)
            )
        )
        if any(answers):
            log.warning("node silent to the lord, but others hear it", node=node)
        return any(answers)

    async def _hears(self, peer: int, channel: str) -> bool:
        try:
            rows = await self._askers.ask(peer, queries("watch")["hears"], channel, ANSWER_S)
            return bool(rows[0][0])
        except (*NO_ANSWER, LordLost):
            return False
