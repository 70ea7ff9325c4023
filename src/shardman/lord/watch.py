"""Declares workers dead, and has their partitions taken over.

A node is probed on a session of its own. One that has not answered for `failover_after` seconds is dead
for the shardlord; unknown is not dead: nodes that stream from it are asked first, and when most nodes
are silent at once it is the shardlord's own network that is suspected.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection

import structlog

from shardman import names
from shardman.lord import settings
from shardman.lord.ask import ANSWER_S, NO_ANSWER, Asker
from shardman.lord.cluster_reader import read_cluster
from shardman.lord.journal import LordLost
from shardman.lord.sessions import Sessions
from shardman.model.cluster import Cluster
from shardman.model.succession import succeed
from shardman.steps.base import Connection
from shardman.tasks import all_of

log = structlog.get_logger()

#: How often a node is probed.
PROBE_EVERY_S = 0.25
#: After a failover that failed the next is tried so much later.
AGAIN_S = 3.0
#: When this part of the workers is silent at once nothing is done.
TOO_MANY = 2 / 3


class Watch:
    """Watches the workers of one tenure.

    Args:
        fail_over: submits a failover of a node, with the reason, and waits for its end.
    """

    def __init__(
        self, sessions: Sessions, fail_over: Callable[[int, str], Awaitable[None]]
    ) -> None:
        self._sessions = sessions
        self._fail_over = fail_over
        self._lord: Connection
        self._probes: dict[int, asyncio.Task[None]] = {}
        #: When a silent node was first asked in vain, by the monotonic clock.
        self._silent: dict[int, float] = {}
        #: The failover that is being waited for.
        self._work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._work.set_result(None)
        self._suspicion: str | None = None

    async def run(self) -> None:
        """Watches until cancelled."""
        self._lord = await self._sessions.lord()
        try:
            while True:
                cluster = await read_cluster(self._lord)
                self._keep({n.id for n in cluster.workers})
                await self._judge(cluster)
                await asyncio.sleep(PROBE_EVERY_S)
        finally:
            for task in (*self._probes.values(), self._work):
                task.cancel()
            await self._lord.close()

    def silent(self) -> set[int]:
        """The workers that do not answer now."""
        return set(self._silent)

    def _keep(self, nodes: set[int]) -> None:
        for probe in self._probes.values():
            if probe.done() and not probe.cancelled():
                probe.result()  # A node that nobody watches would never be replaced.
        for gone in self._probes.keys() - nodes:
            self._probes.pop(gone).cancel()
            self._silent.pop(gone, None)
        for new in nodes - self._probes.keys():
            self._probes[new] = asyncio.create_task(self._probe(new))

    async def _probe(self, node: int) -> None:
        asker = Asker(self._sessions, node)
        try:
            while True:
                asked = time.monotonic()
                # Where it is the lord's database that does not answer nothing is known of the node.
                with contextlib.suppress(LordLost):
                    try:
                        await asker.ask("select")
                        self._silent.pop(node, None)
                    except NO_ANSWER:
                        self._silent.setdefault(node, asked)
                await asyncio.sleep(PROBE_EVERY_S)
        finally:
            await asker.close()

    async def _judge(self, cluster: Cluster) -> None:
        if self._work.done():
            self._work.result()
        after = await settings.seconds(self._lord, "failover_after", settings.FAILOVER_AFTER_S)
        workers = {n.id for n in cluster.workers}
        alive = workers - self._silent.keys()
        dead = {n for n, since in self._silent.items() if time.monotonic() - since >= after}
        after_them = {n: succeed(cluster, n, alive) for n in dead}
        # Those who have nothing any more that somebody could take over say nothing about the network.
        over = {n for n, found in after_them.items() if not found.promoted and not found.stale}
        if await self._suspicious(self._silent.keys() - over, len(workers - over)):
            return
        for node in sorted(dead):
            # Whoever waits for its answer has waited long enough.
            self._sessions.sever(node)
        for node in sorted(dead - over):
            # One at a time: each changes who is left to take over.
            if self._work.done() and not await self._streams(cluster, node, alive):
                reason = self._reason(node, alive)
                log.warning("node dead", node=node, reason=reason)
                self._work = asyncio.create_task(self._replace(node, after, reason))

    def _reason(self, node: int, alive: set[int]) -> str:
        silent = time.monotonic() - self._silent.get(node, time.monotonic())
        asked = ", ".join(str(n) for n in sorted(alive))
        heard = f"nodes asked, which do not hear it either: {asked}" if asked else "nobody to ask"
        return f"silent for {silent:.1f} s; {heard}"

    async def _suspicious(self, silent: Collection[int], workers: int) -> bool:
        """Whether so many nodes are silent at once that the fault is more likely here, or were until now:
        they come back one after the other, and each gets its time anew."""
        suspicious = len(silent) >= max(2, TOO_MANY * workers)
        nodes = ", ".join(map(str, sorted(silent)))
        suspicion = f"most workers are silent at once: {nodes}" if suspicious else None
        over = self._suspicion is not None and not suspicious
        if over:
            self._silent = dict.fromkeys(self._silent, time.monotonic())
        if suspicion != self._suspicion:
            if suspicion is not None:
                log.warning("nothing is done", reason=suspicion)
            self._suspicion = suspicion
            await self._lord.execute("update shardman.lease set suspicion = %s", (suspicion,))
        return suspicious or over

    async def _replace(self, node: int, after: float, reason: str) -> None:
        await self._fail_over(node, reason)
        # Whether it succeeded is seen in the metadata.
        if node in self._silent:
            self._silent[node] = time.monotonic() - after + AGAIN_S

    async def _streams(self, cluster: Cluster, node: int, alive: set[int]) -> bool:
        """Whether a node that is silent here still speaks to one that is not."""
        answers = await all_of(
            *(self._hears(peer, names.channel(cluster.id, node, peer)) for peer in sorted(alive))
        )
        if any(answers):
            log.warning("node silent to the lord, but others hear it", node=node)
        return any(answers)

    async def _hears(self, peer: int, channel: str) -> bool:
        asker = Asker(self._sessions, peer)
        try:
            rows = await asker.ask(
                "select exists (select from pg_stat_subscription where subname = %s"
                " and pid is not null"
                " and last_msg_receipt_time > clock_timestamp() - make_interval(secs => %s))",
                channel,
                ANSWER_S,
            )
            return bool(rows[0][0])
        except (*NO_ANSWER, LordLost):
            return False
        finally:
            await asker.close()
