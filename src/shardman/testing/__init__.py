"""For tests against real servers: ours, and those of applications that run on shardman.

`pytest_plugins = ["shardman.testing.plugin"]` in a conftest.py gives the fixtures.
"""

from shardman.testing.cluster import Cluster, CommandResult
from shardman.testing.proxy import Proxy
from shardman.testing.waiting import eventually

__all__ = ["Cluster", "CommandResult", "Proxy", "eventually"]
