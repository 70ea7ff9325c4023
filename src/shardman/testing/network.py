"""A cluster whose servers reach each other through wires that can be cut, each pair in each direction.

Clients of a test connect to the servers straight, as if they stood beside them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Self

from psycopg import sql

from shardman.pg.initialize import initialize
from shardman.testing.cluster import LORD, Cluster
from shardman.testing.proxy import Proxy

_CHANNEL = re.compile(r"shardman_(?:[a-z0-9]{6}_\d+|meta_[a-z0-9]{6})_(\d+)\Z")


def who(startup: dict[str, str]) -> str:
    """The id of the node that connects; ``stream`` for a copy channel, whose receiver its name
    does not tell."""
    name = startup.get("application_name", "")
    if name.startswith("shardman lord"):
        return str(LORD)
    if found := _CHANNEL.match(name) or re.match(r"from_(\d+)\Z", name):
        return found[1]
    return "stream"


class Network:
    """A lord and workers with a wire in front of each.

    Args:
        cluster: bare: servers that run, and nothing of shardman on them.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._wires: dict[int, Proxy] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        cluster = self.cluster
        asyncio.run(initialize(cluster.lord_dsn, self._wire(LORD).dsn))
        self._name_queries(LORD)
        cluster.start_lord()
        for node in sorted(cluster.worker_dsns):
            self.add(node)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, node: int) -> None:
        """Makes a server that runs the worker of this id, which must be the next one."""
        self._name_queries(node)
        done = self.cluster.cmd("select shardman.add_node(%s)", (self._wire(node).dsn,))
        assert done.status == "success", done

    def _wire(self, node: int) -> Proxy:
        wire = self._stack.enter_context(Proxy.to(self.cluster.dsn(node), who))
        self._wires[node] = wire
        return wire

    def _name_queries(self, node: int) -> None:
        """Queries of other nodes say where they come from."""
        self.cluster.sql(
            node,
            sql.SQL("alter database postgres set postgres_fdw.application_name = {}").format(
                sql.Literal(f"from_{node}")
            ),
        )

    # -- what can happen -------------------------------------------------------------------------

    def cut(self, src: int, dest: int) -> None:
        """Nothing that one node sends reaches the other, whoever of them has connected."""
        self._wires[dest].cut(name=str(src), to_client=False)
        self._wires[src].cut(name=str(dest), to_server=False)

    def part(self, one: int, other: int) -> None:
        """The two do not reach each other."""
        for here, there in ((one, other), (other, one)):
            self._wires[here].cut(name=str(there))

    def isolate(self, node: int, of: Iterable[int] | None = None) -> None:
        """Nobody reaches a node and it reaches nobody; ``of``: of these only."""
        for other in self._wires if of is None else of:
            if other != node:
                self.part(node, other)
        if of is None:
            self._wires[node].cut()

    def heal(self) -> None:
        """Everybody reaches everybody."""
        for wire in self._wires.values():
            wire.heal()
