"""PostgreSQL servers on this machine, for development, the demo and the tests."""

from shardman.local.cluster import LocalCluster
from shardman.local.programs import Programs, find_programs
from shardman.local.server import Server

__all__ = ["LocalCluster", "Programs", "Server", "find_programs"]
