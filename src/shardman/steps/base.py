"""How a step reaches servers, and how the runner finds a step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from psycopg import AsyncConnection

from shardman.commands.base import Command, Facts
from shardman.model.plan import Json, Step

Connection = AsyncConnection[Any]


class Run(Protocol):
    """What the runner hands to a step: the command it belongs to, sessions, and a mouth."""

    cmd_id: int
    attempt: int
    cluster_id: str
    epoch: int
    #: Values that a later step of the same attempt may use; nothing that recovery needs.
    memory: dict[str, Any]
    #: Held while a fence is up: one in the cluster at a time.
    fence: asyncio.Lock

    async def node(self, node_id: int) -> Connection:
        """The command's session on a node: autocommit, admitted by the epoch, search_path public,
        synchronous_commit local. The lord's own database is node 0's. Raises
        psycopg.OperationalError when the node cannot be reached."""
        ...

    def borrow(self, node_id: int) -> AbstractAsyncContextManager[Connection]:
        """One more such session, for use beside the first. Its settings are left as they were: given
        back, it serves the next who asks."""
        ...

    async def replication(self, node_id: int) -> AsyncConnection[Any]:
        """A replication connection to a node; the caller closes it."""
        ...

    async def peer(self, node_id: int) -> str:
        """How other nodes reach a node, password included; never to be logged."""
        ...

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
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

    async def child(self, cmd_type: str, opts: list[str | None]) -> tuple[str, str | None]:
        """Runs another command as a part of this one; returns its status and error."""
        ...

    def say(self, sentence: str) -> None:
        """Adds a sentence to the command's result."""
        ...


class StepType(Protocol):
    """One kind of step. Both directions are idempotent: they look before they act."""

    async def do(self, run: Run) -> None: ...

    async def undo(self, run: Run) -> None:
        """Takes back what `do` did or half did. A finish step has none (never called)."""
        ...


_registry: dict[str, Callable[..., StepType]] = {}
S = TypeVar("S", bound=StepType)


def step(kind: str) -> Callable[[type[S]], type[S]]:
    """Registers a (frozen data-) class as the step of this kind; its fields are the step's args."""

    def register(cls: type[S]) -> type[S]:
        if kind in _registry:
            raise ValueError(f"two steps of the kind {kind}")
        _registry[kind] = cls
        return cls

    return register


def bind(planned: Step) -> StepType:
    """The step that does what was planned."""
    return bind_args(planned.kind, planned.args)


def bind_args(kind: str, args: Mapping[str, Json]) -> StepType:
    """Raises KeyError for an unknown kind, TypeError when args do not fit it."""
    return _registry[kind](**args)
