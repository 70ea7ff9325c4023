"""What a step gets to work with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from shardman.commands.base import Command, Facts
from shardman.pg.connection import Connection
from shardman.steps.handed import Figures, Handed


class Run(Protocol):
    """One attempt of a command, as its steps see it: who it is, sessions, and a mouth."""

    cmd_id: int
    attempt: int
    cluster_id: str
    epoch: int
    #: What was measured; becomes a part of the command's result.
    figures: Figures
    #: What a later step of the same attempt uses; nothing that recovery needs.
    handed: Handed
    #: The same command begins anew when this attempt is undone: what was made before it, for it, stays.
    again: bool
    #: Held while a cut-over is up: one in the cluster at a time.
    cut_over_lock: asyncio.Lock

    async def node(self, node_id: int) -> Connection:
        """The command's session on a node: autocommit, admitted by the epoch, search_path public,
        synchronous_commit local. The lord's own database is node 0's. Raises
        psycopg.OperationalError when the node cannot be reached."""
        ...

    def extra_session(self, node_id: int) -> AbstractAsyncContextManager[Connection]:
        """One more such session. Its settings are left as they were: given back, it serves the next who
        asks."""
        ...

    async def replication(self, node_id: int) -> Connection:
        """A replication connection to a node; the caller closes it."""
        ...

    async def peer(self, node_id: int) -> str:
        """How other nodes reach a node, password included; never to be logged."""
        ...

    def named_lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """Keeps other tasks of the shardlord from what has this name, after waiting for them."""
        ...

    async def conninfo(self, node_id: int) -> str:
        """How the lord reaches a node, password included; never to be logged."""
        ...

    async def progress(
        self,
        *,
        bytes_done: int | None = None,
        bytes_total: int | None = None,
        rows_done: int | None = None,
    ) -> None:
        """Shows how far the running step is (rate limited)."""
        ...

    async def waits_for(self, whom: str | None) -> None:
        """Shows whom the running step waits for; None when it waits no more."""
        ...

    async def facts(self, command: Command) -> Facts:
        """What a plan of a command would be made of now: the cluster, and the nodes' answers."""
        ...

    async def child(self, command: Command) -> tuple[str, str | None]:
        """Runs another command as a part of this one; returns its status and error."""
        ...

    def prepares(self, what: str, nodes: Mapping[int, int]) -> None:
        """Tells that transactions are about to be prepared: should the lord's database be lost, somebody has to
        end them.

        Args:
            what: the partition or table that is locked meanwhile, for people.
            nodes: in the order in which they are to be committed, each with the process number of its session.
        """
        ...

    def prepared_ended(self, node_id: int) -> None:
        """Tells that nothing of this command is prepared on a node any more."""
        ...

    def say(self, sentence: str) -> None:
        """Adds a sentence to the command's result."""
        ...
