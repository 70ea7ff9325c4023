"""How far a subscriber is: waiting until it streams, is close behind, or has confirmed everything."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Iterable, Mapping, Sequence

from shardman import names
from shardman.errors import Code, Temporary
from shardman.pg import slots
from shardman.pg.connection import Connection
from shardman.steps.base import Run
from shardman.steps.catalog import value
from shardman.steps.locks import Busy, Deadline
from shardman.tasks import all_of

#: How long a new subscription may take to start streaming. Servers start apply workers one per
#: wal_retrieve_retry_interval, five seconds by default, over all subscriptions.
STREAMING_TIMEOUT_S = 60.0
#: Behind by less than this, the rest fits into a cut-over.
SMALL_LAG_BYTES = 64 * 1024
#: Seconds between two looks at whether the subscriber of a copy fails, and how often it may at one place.
_LOOK_S = 0.5
_MOST_ERRORS = 5


class CopySubscriber:
    """The destination of a copy channel, which may fail of what comes for ever: of rows with a column that DDL
    has dropped there since, say.

    Args:
        slot: its name, and that of the subscription.
    """

    def __init__(self, run: Run, slot: str, src: int, dest: int) -> None:
        self._run = run
        self._slot = slot
        self._src, self._dest = src, dest
        self._confirmed: str | None = None
        self._errors = 0
        self._looked = -math.inf

    async def need_progress(self) -> None:
        """Looks, once in `_LOOK_S` at most, whether it gets on.

        Raises:
            Temporary: it has failed `_MOST_ERRORS` times and confirmed nothing meanwhile.
        """
        if time.monotonic() < self._looked + _LOOK_S:
            return
        self._looked = time.monotonic()
        confirmed = await value(
            await self._run.node(self._src),
            "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s",
            self._slot,
        )
        errors = await value(
            await self._run.node(self._dest),
            "select apply_error_count from pg_stat_subscription_stats where subname = %s",
            self._slot,
        )
        if confirmed != self._confirmed or errors is None:
            self._confirmed, self._errors = confirmed, errors or 0
        elif errors >= self._errors + _MOST_ERRORS:
            raise Temporary(
                f"node {self._dest} cannot take what was written on node {self._src} meanwhile: see its log",
                code=Code.REPLICATION_STALLED,
            )


async def wait_streaming(
    source: Connection, slot: str, dest: int, subscriber: CopySubscriber | None = None
) -> None:
    """Waits until a subscriber streams.

    Args:
        subscriber: of a copy channel.

    Raises:
        Temporary: it does not within STREAMING_TIMEOUT_S, or fails of what comes.
    """
    deadline = time.monotonic() + STREAMING_TIMEOUT_S
    pauses = itertools.chain((0.005, 0.005, 0.01), itertools.repeat(0.02))
    while not await value(
        source,
        "select exists (select from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid"
        " where s.slot_name = %s and r.state = 'streaming')",
        slot,
    ):
        if time.monotonic() > deadline:
            raise Temporary(
                f"the subscription {slot} on node {dest} does not start streaming",
                code=Code.REPLICATION_STALLED,
            )
        if subscriber:
            await subscriber.need_progress()
        await source.execute("select shardman.emit()")
        await asyncio.sleep(next(pauses))


async def lag(source: Connection, slot: str) -> int:
    """Bytes of WAL that a slot's subscriber has not confirmed."""
    return int(
        await value(
            source,
            "select pg_current_wal_insert_lsn() - confirmed_flush_lsn"
            " from pg_replication_slots where slot_name = %s",
            slot,
        )
        or 0
    )


async def catch_up(
    run: Run, source: Connection, slot: str, subscriber: CopySubscriber | None = None
) -> None:
    """Waits until the subscriber is close behind, showing how far it is.

    Args:
        subscriber: of a copy channel.

    Raises:
        Temporary: that gets no further.
    """
    while (behind := await lag(source, slot)) > SMALL_LAG_BYTES:
        if subscriber:
            await subscriber.need_progress()
        if behind > 16 * SMALL_LAG_BYTES:
            await run.waits_for(f"the destination to apply {behind >> 20} MB of WAL")
        await source.execute("select shardman.emit()")
        await asyncio.sleep(0.05 if behind > 16 * SMALL_LAG_BYTES else 0.005)
    await run.waits_for(None)


#: All channels must be empty within this, or the cut-over gives way.
CONFIRM_TIMEOUT_MS = 400


async def drain(emitter: Connection, slots: Iterable[str]) -> None:
    """Waits until the subscribers of these slots have confirmed everything that was written before.

    Raises:
        Busy: they have not in time.
    """
    deadline = Deadline(CONFIRM_TIMEOUT_MS)
    for slot in slots:
        await emitter.execute("select shardman.emit()")
        if not await value(
            emitter,
            "select shardman.await_confirmed(%s, pg_current_wal_insert_lsn(), %s)",
            slot,
            deadline.left_ms(),
        ):
            raise Busy("the destination to confirm the last writes")


async def catch_up_channels(
    run: Run, emitters: Mapping[int, Connection], channels: Sequence[Sequence[int]]
) -> None:
    """Waits until little is left in channels; see `catch_up`.

    Args:
        emitters: sessions on the nodes from which they come.
        channels: from where to where.
    """
    for src, dest in channels:
        await catch_up(run, emitters[src], names.channel(run.cluster_id, src, dest))


async def drain_channels(
    run: Run, emitters: Mapping[int, Connection], channels: Sequence[Sequence[int]]
) -> None:
    """Waits until nothing is left in them; see `drain`."""

    async def of(src: int, emitter: Connection) -> None:
        await drain(
            emitter, [names.channel(run.cluster_id, s, dest) for s, dest in channels if s == src]
        )

    await all_of(*(of(src, emitter) for src, emitter in emitters.items()))


#: How long a channel may take to confirm that nothing more comes for a table.
QUIET_TIMEOUT_MS = 10_000


async def quiet(conn: Connection, slot: str) -> None:
    """Waits until a channel's subscriber has everything that was written before.

    Raises:
        Temporary: it has not in time; what is on its way could still be for a table that was taken out.
    """
    if slot not in await slots.ls(conn, slot):
        return
    await conn.execute("select shardman.emit()")
    if not await value(
        conn,
        "select shardman.await_confirmed(%s, pg_current_wal_insert_lsn(), %s)",
        slot,
        QUIET_TIMEOUT_MS,
    ):
        raise Temporary(f"the subscriber of {slot} does not confirm", code=Code.REPLICATION_STALLED)
