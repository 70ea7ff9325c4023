"""The two kinds of connection, each under one name.

The shardlord, its steps and what they call are asynchronous; the command line, the client and the
checks across nodes are not. What rows look like (tuples or dictionaries) is said where a connection is
opened.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import psycopg

#: Of the shardlord, the steps, and the effects on one server.
Connection: TypeAlias = psycopg.AsyncConnection[Any]
#: Of the command line, the client, and who looks at several nodes from outside.
SyncConnection: TypeAlias = psycopg.Connection[Any]
