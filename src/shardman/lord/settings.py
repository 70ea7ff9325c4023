"""Settings of the cluster, as the shardlord reads them: rows of shardman.settings. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

#: A node that has been silent for so long is dead.
FAILOVER_AFTER_S = 5.0
#: A table that has had fewer replicas than asked for so long gets new ones.
REBUILD_AFTER_S = 600.0
#: A replica is compared with its primary no sooner again.
SCRUB_EVERY_S = 60.0
#: Clients that commit on several nodes wait no longer for whoever holds commits.
HOLD_COMMITS_FOR_S = 60.0


@dataclass(frozen=True)
class Settings:
    """The settings at one instant.

    Args:
        values: by name, as they were written; missing means the default.
    """

    values: Mapping[str, str] = field(default_factory=dict)

    def seconds(self, name: str, default: float) -> float:
        """A setting in seconds; the default where it is missing or makes no sense."""
        try:
            read = float(self.values.get(name, default))
        except ValueError:
            return default
        return read if math.isfinite(read) and read >= 0 else default

    @property
    def failover_after(self) -> float:
        """How long a node may be silent, in seconds."""
        return self.seconds("failover_after", FAILOVER_AFTER_S)

    @property
    def rebuild_after(self) -> float:
        """How long a table may have fewer replicas than asked for, in seconds."""
        return self.seconds("rebuild_after", REBUILD_AFTER_S)

    @property
    def scrub_every(self) -> float:
        """How long a replica is not compared again, in seconds."""
        return self.seconds("scrub_every", SCRUB_EVERY_S)

    @property
    def hold_commits_for(self) -> float:
        """For how long a session may hold commits, in seconds."""
        return self.seconds("hold_commits_for", HOLD_COMMITS_FOR_S)

    @property
    def scrub_repair(self) -> bool:
        """Whether a replica that differs from its primary is brought up to date."""
        return self.values.get("scrub_repair", "on") != "off"

    @property
    def lord_sync(self) -> bool:
        """Whether commits in the lord's database wait until a worker has them."""
        return self.values.get("lord_sync", "on") != "off"

    @property
    def promoted(self) -> bool:
        """Whether there was another lord than this one before."""
        return self.values.get("lord_term", "0") != "0"
