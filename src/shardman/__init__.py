"""One sharded database out of stock PostgreSQL servers.

import shardman

with shardman.connect(dsn) as db:      # any node
    db.move_part("accounts_3", 2)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shardman.errors import Code, UserError

if TYPE_CHECKING:
    from shardman.client import Client, Result, connect

__all__ = ["Client", "Code", "Result", "UserError", "connect"]


def __getattr__(name: str) -> Any:
    """Loads the client when it is first used: the program starts faster without it."""
    if name in ("Client", "Result", "connect"):
        return getattr(import_module("shardman.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
