"""Gives up replicas whose channel does not deliver, or that their primary cannot reach although both
nodes live.

A channel is believed while each of its objects is what it must be, its beats arrive, and its subscriber
confirms. Otherwise the replicas that it feeds are no copies any more: commits do not wait for them, none
of them is promoted, and `rebuild` brings them up to date anew. Where the fault is one table's, only its
replicas leave the channel: whoever breaks his table harms no others. What is decided is in
`policies.channels` and `policies.deliveries`. A shardlord that dies while a channel is broken leaves
nothing: the next one looks anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import structlog

from shardman import names
from shardman.errors import Temporary
from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.metadata import Known, Metadata
from shardman.lord.policies.channels import ChannelHealth, Pair, Signs
from shardman.lord.policies.deliveries import Deliveries
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.sessions import Sessions
from shardman.lord.watchers.culprits import Culprits
from shardman.lord.watchers.empty_parts import EmptyParts
from shardman.lord.watchers.looks import Looks
from shardman.lord.watchers.once import Once
from shardman.lord.watchers.two_phases import TwoPhases
from shardman.pg import beats
from shardman.sql.loader import queries
from shardman.steps.catalog import value
from shardman.tasks import all_of

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
#: Also what has not changed is compared again after so many looks.
COMPARE_EVERY = 30
#: What was given up in vain is given up again so much later, then after twice that, up to the last, in seconds.
AGAIN_S, SELDOM_S = 15.0, 240.0


@dataclass(frozen=True)
class Fault:
    """Where a channel differs from what it must be, as one of its nodes says.

    Args:
        part: None for what concerns all partitions of the channel.
        code: see shardman.channel_faults.
    """

    src: int
    dest: int
    part: str | None
    code: str
    fault: str

    @property
    def pair(self) -> Pair:
        return self.src, self.dest

    def concerns(self, known: Known) -> bool:
        """Whether a replica hangs on it by the metadata; those of the node may be older."""
        if self.part is None:
            return self.pair in known.pairs
        primary = known.cluster.primaries.get(self.part)
        return (
            primary is not None
            and primary.owner == self.src
            and self.dest in known.cluster.replicas_of(self.part)
        )

    def __str__(self) -> str:
        return self.fault + (f" ({self.part})" if self.part else "")


@dataclass(frozen=True)
class Verdict:
    """Replicas that are to be given up.

    Args:
        relation: of this table alone; None for all that the channel feeds.
    """

    pair: Pair
    relation: str | None
    reason: str

    @property
    def what(self) -> tuple[Pair, str | None]:
        return self.pair, self.relation


class Suspend(Protocol):
    """Submits a suspension of the replicas of one node's primaries on another, with the reason, and waits
    for its end."""

    def __call__(
        self, src: int, dest: int, reason: str, relation: str | None = None
    ) -> Coroutine[Any, Any, None]: ...


@dataclass
class _Well:
    """What a node's objects were when they were found to be right, and for how many looks they have been."""

    version: str | None = None
    looks: int = 0


class Channels:
    """Watches the channels of one leadership.

    Args:
        nodes: what is known of the workers: those that are silent are watched elsewhere.
        failing: is told of a node on which what comes cannot be applied, of all tables or of one.
        two_phases: converts channels that are well.
    """

    def __init__(
        self,
        sessions: Sessions,
        askers: Askers,
        metadata: Metadata,
        nodes: NodeHealth,
        suspend: Suspend,
        failing: Callable[[int, str | None], None],
        two_phases: TwoPhases,
    ) -> None:
        self._sessions = sessions
        self._askers = askers
        self._metadata = metadata
        self._nodes = nodes
        self._suspend = suspend
        self._failing = failing
        self._two_phases = two_phases
        self._health = ChannelHealth()
        self._culprits = Culprits(askers, metadata)
        self._empty_parts = EmptyParts(askers)
        self._deliveries = Deliveries()
        self._well: dict[int, _Well] = {}
        #: What each node has said at its last look.
        self._faults: dict[int, list[Fault]] = {}
        self._wake = asyncio.Event()
        self._complaints = Once()
        #: When a channel, or a table in it, may be given up again, and the pause after that.
        self._again: dict[tuple[Pair, str | None], tuple[float, float]] = {}

    async def run(self) -> None:
        """Watches until cancelled."""
        async with asyncio.TaskGroup() as group:
            looks = Looks(group, "look at channels of node", self._look)
            while True:
                silent = self._nodes.silent()
                pairs = {p for p in self._metadata.known.pairs if not {*p} & silent}
                # Those too whose subscriber is silent: what others take from its slot then has beats in it.
                nodes = {node for pair in self._metadata.known.pairs for node in pair} - silent
                self._health.keep(pairs & self._metadata.known.synchronous_pairs)
                self._deliveries.keep(pairs)
                self._culprits.keep(pairs)
                self._faults = {n: f for n, f in self._faults.items() if n in nodes}
                self._well = {n: w for n, w in self._well.items() if n in nodes}
                looks.keep(nodes)
                self._again = {w: again for w, again in self._again.items() if w[0] in pairs}
                await self._judge(pairs)
                await self._convert_some(pairs)
                await self._pause()

    async def _pause(self) -> None:
        """Until the next judgement is due, or a look has found something."""
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _look(self, node: int) -> float:
        """Has a node write its beat, and notes how far its channels are and where they differ."""
        well = self._well.setdefault(node, _Well())
        known = well.version if well.looks % COMPARE_EVERY else None
        asked = time.monotonic()
        try:
            rows = await self._askers.ask(node, queries("watch")["channels"], known)
        except (*NO_ANSWER, LordLost):
            for pair in self._metadata.known.pairs:
                if pair[0] == node:
                    self._health.unknown(pair)
            return LOOK_EVERY_S
        beat, wal_end, confirmed, arrived, version, faults, failures, takes = rows[0]
        self._culprits.looked(node, takes)
        self._note(node, asked, beat, wal_end, _by_node(confirmed), _by_node(arrived))
        for src, (errors, pid) in (failures or {}).items():
            self._health.applies((int(src), node), errors, pid)
        self._faults[node] = _read(faults)
        well.looks += 1
        # What is wrong is looked for again until it is not.
        well.version = None if self._faults[node] else version
        if self._faults[node]:
            self._wake.set()
        return LOOK_EVERY_S

    def _note(
        self,
        node: int,
        asked: float,
        beat: int,
        wal_end: int,
        confirmed: dict[int, int],
        arrived: dict[int, int],
    ) -> None:
        now = time.monotonic()
        silent = self._nodes.silent()
        for pair in self._metadata.known.synchronous_pairs:
            if pair[0] == node and pair[1] not in silent:
                # Without a slot nothing will ever be confirmed.
                self._health.looked(pair, confirmed.get(pair[1], 0), wal_end, now)
        self._deliveries.looked(node, beat, wal_end, confirmed, now)
        self._deliveries.arrived(node, arrived, asked)

    async def _judge(self, pairs: Collection[Pair]) -> None:
        """Gives up all that is broken, together: whoever's commits hang on several waits for none of them
        twice."""
        late = [pair for pair in self._health.late() if pair in pairs]
        await all_of(*(self._look_for_signs(pair) for pair in late))
        await all_of(*(self._fill_in(pair) for pair in late if self._health.errs(pair)))
        found = await all_of(*(self._verdicts(pair) for pair in sorted(pairs)))
        broken = [v for verdicts in found for v in verdicts if self._may(v)]
        await all_of(*(self._give_up(verdict) for verdict in broken))

    async def _convert_some(self, pairs: Collection[Pair]) -> None:
        """In the same task as the judgement, which must not meet a channel that is being converted."""
        faulty = {f.pair for found in self._faults.values() for f in found}
        well = [p for p in pairs if p not in faulty and p not in self._health.late()]
        for pair in await self._two_phases.convert_some(well):
            self._forget(pair)

    def _forget(self, pair: Pair) -> None:
        """What was seen of a channel that was another one then."""
        self._health.unknown(pair)
        self._deliveries.forget(pair)
        for node in pair:
            self._faults.pop(node, None)
            self._well.pop(node, None)

    def _may(self, verdict: Verdict) -> bool:
        """Whether it was not given up in vain just before."""
        now = time.monotonic()
        return self._again.get(verdict.what, (now, 0))[0] <= now

    async def _verdicts(self, pair: Pair) -> list[Verdict]:
        """Which replicas behind a channel are to be given up; none where it is believed."""
        after = self._metadata.known.settings.failover_after
        if (reason := self._health.broken(pair, after)) is not None:
            return [Verdict(pair, None, reason)]
        if any(f.pair == pair for found in self._faults.values() for f in found):
            return await self._differs(pair)
        if self._deliveries.lost(pair):
            return [Verdict(pair, None, "a beat was confirmed and did not arrive")]
        return await self._culprit(pair)

    async def _culprit(self, pair: Pair) -> list[Verdict]:
        """The tables for which a channel stands still, or is about to; none where that is not known, or it
        carries nothing else."""
        errs = self._health.errs(pair)
        differing = await self._culprits.differing(pair, failing=errs)
        found = [Fault(*pair, part, "takes", why) for part, why in differing.items()]
        known = self._metadata.known
        if errs and not found:
            why = f"the worker on node {pair[1]} fails with what comes, the log of its server says why"
            found = [
                Fault(*pair, p, "pending", why)
                for p in await self._culprits.pending(pair)
                if not known.all_of(pair, known.cluster.primary(p).relation)
            ]
        left = [f for f in found if f.concerns(known)]
        if not left or await self._being_cut():
            return []
        return list(_verdicts(pair, left, known))

    async def _look_for_signs(self, pair: Pair) -> None:
        name = self._name(pair)
        try:
            sends, applies = await all_of(
                self._askers.ask(pair[0], queries("watch")["send_signs"], name),
                self._askers.ask(pair[1], queries("watch")["apply_signs"], name),
            )
        except (*NO_ANSWER, LordLost):
            return  # It is the node that is watched, not the channel.
        sent, sender_waits, sender_ticks, sender_said = sends[0] if sends else (None,) * 4
        heard, received, waits, ticks, said = applies[0]
        signs = Signs(
            sent=int(sent or 0),
            received=int(received),
            heard=heard,
            waits=(sender_waits, waits),
            ticks=(sender_ticks, ticks),
            said=tuple(
                f"node {n}: {s}" for n, s in zip(pair, (sender_said, said), strict=True) if s
            ),
        )
        self._health.signs(pair, signs, time.monotonic())

    async def _give_up(self, verdict: Verdict) -> None:
        pair, relation = verdict.what
        log.warning(
            "channel broken", src=pair[0], dest=pair[1], reason=verdict.reason, relation=relation
        )
        if self._health.fails(pair):
            self._failing(pair[1], relation)
        await self._suspend(*pair, verdict.reason, relation)
        if (await self._metadata.read()).follows(pair, relation):
            _, pause = self._again.get(verdict.what, (0, AGAIN_S))
            self._again[verdict.what] = time.monotonic() + pause, min(2 * pause, SELDOM_S)
        self._forget(pair)

    async def _differs(self, pair: Pair) -> list[Verdict]:
        """Looks again, for a command may have been at work between what two nodes know; which replicas are to
        be given up."""
        known = await self._metadata.read()
        found: list[Fault] = []
        for node in pair:
            try:
                rows = await self._askers.ask(node, queries("watch")["channel_faults"])
            except (*NO_ANSWER, LordLost):
                return []
            found += [f for f in _read(rows[0][0]) if f.pair == pair and f.concerns(known)]
        if any(f.code == "beat" for f in found):
            await self._give_beat(pair)
        left = [f for f in found if f.code != "beat"]
        if not left or await self._being_cut():
            return []
        return list(_verdicts(pair, left, known))

    async def _being_cut(self) -> bool:
        """Whether a command is at work that cuts channels before it decides, or has decided on new ones
        that nodes do not have yet."""
        lord = await self._sessions.lord()
        try:
            return bool(await value(lord, queries("watch")["channels_cut"]))
        finally:
            await lord.close()

    async def _give_beat(self, pair: Pair) -> None:
        """To a channel of a former version, or where somebody took it out."""
        try:
            lord = await self._sessions.lord()
            try:
                src = await self._sessions.open(pair[0], lord)
                dest = await self._sessions.open(pair[1], lord)
                guard = await self._sessions.open(pair[1], lord)
                try:
                    await beats.carry(src, dest, guard, self._name(pair), pair[0])
                finally:
                    await src.close()
                    await dest.close()
                    await guard.close()
            finally:
                await lord.close()
            self._deliveries.forget(pair)
            self._complaints.well(pair)
        except (*NO_ANSWER, Temporary, LordLost, psycopg.Error) as error:
            if self._complaints.first(pair):
                log.warning("no beat", src=pair[0], dest=pair[1], error=str(error) or "timeout")

    async def _fill_in(self, pair: Pair) -> None:
        """What its worker fails for may be no fault of the channel."""
        if await self._empty_parts.fill_in(*pair, self._name(pair)):
            # Its worker comes again within wal_retrieve_retry_interval, and has as long as any from now on.
            self._health.unknown(pair)

    def _name(self, pair: Pair) -> str:
        return names.channel(self._metadata.known.cluster.id, *pair)


def _verdicts(pair: Pair, faults: Iterable[Fault], known: Known) -> Iterable[Verdict]:
    """What faults cost: all that the channel feeds, or only the tables whose faults they are."""
    found: dict[str | None, list[Fault]] = {}
    for fault in faults:
        primary = None if fault.part is None else known.cluster.primaries[fault.part]
        found.setdefault(primary.relation if primary else None, []).append(fault)
    for relation, its in {None: found[None]}.items() if None in found else found.items():
        more = f", and {len(its) - 1} more" if len(its) > 1 else ""
        yield Verdict(pair, relation, f"{its[0]}{more}")


def _by_node(found: dict[str, int | None]) -> dict[int, int]:
    """Without those of which nothing is known: a slot that is being made has no position yet."""
    return {int(node): int(number) for node, number in found.items() if number is not None}


def _read(faults: list[dict[str, Any]] | None) -> list[Fault]:
    return [Fault(**each) for each in faults or ()]
