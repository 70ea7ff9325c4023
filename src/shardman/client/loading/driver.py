"""What loading needs of a connection."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from shardman.client.router import Router
from shardman.client.sessions import Steps


class Driver(Protocol):
    """A connection to the cluster."""

    router: Router

    def drive(self, steps: Steps) -> Any:
        """Runs what a router wants to be called."""

    def transaction(self) -> AbstractContextManager[None]:
        """A transaction, or a savepoint inside of one."""
