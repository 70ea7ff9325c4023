"""Settings of the cluster, as the shardlord reads them: rows of shardman.settings."""

from __future__ import annotations

import math

from shardman.steps.base import Connection
from shardman.steps.catalog import value

#: A node that has been silent for so long is dead.
FAILOVER_AFTER_S = 5.0
#: A table that has had fewer replicas than asked for so long gets new ones.
REBUILD_AFTER_S = 600.0


async def seconds(lord: Connection, name: str, default: float) -> float:
    """A setting in seconds; the default where it is missing or makes no sense."""
    found = await value(lord, "select shardman.setting(%s, %s)", name, str(default))
    try:
        read = float(found)
    except ValueError:
        return default
    return read if math.isfinite(read) and read >= 0 else default
