"""Keeps writers away from all copies of a shared table while a change of its schema is repeated on one node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg

from shardman.lord.shared_copies import SharedCopies
from shardman.lord.watchers.readers import Readers
from shardman.model.cluster import Shared
from shardman.pg.connection import Connection

#: Who stands in line to write has a lock on the table where he is, which the change needs: after so long he is
#: sent away, and then again and again, in seconds.
POLITE_S, AGAIN_S = 2.0, 0.5


class SharedGate:
    """Closes and opens it."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    @asynccontextmanager
    async def closed(self, table: Shared | None) -> AsyncIterator[None]:
        """Within the block nobody writes to the table.

        Args:
            table: None: there is nothing to be kept away from.

        Raises:
            Unsettled, Changed: see `SharedCopies.held`.
        """
        if table is None:
            yield
            return
        async with AsyncExitStack() as stack:
            holders = {n: await self._readers.session(stack, n) for n in table.nodes}
            async with SharedCopies(table.relation, holders, {}).held():
                making = asyncio.create_task(_make_way(holders[min(holders)], table.relation))
                try:
                    yield
                finally:
                    making.cancel()
                    await asyncio.wait({making})


async def _make_way(conn: Connection, relation: str) -> None:
    with contextlib.suppress(psycopg.Error):
        await asyncio.sleep(POLITE_S)
        await conn.execute("select shardman.hold_way(%s)", (relation,))
        while True:
            await conn.execute("select shardman.make_way(%s)", (relation,))
            await asyncio.sleep(AGAIN_S)
