"""Free ports on 127.0.0.1."""

from __future__ import annotations

import random
import socket

from shardman.errors import Code, UserError

HOST = "127.0.0.1"

# Below the range from which Linux and others take the local ports of outgoing connections: while
# a server is stopped, no connection of anybody can sit on its port by chance.
_RANGE = range(20000, 32000)


def is_free(port: int) -> bool:
    """Whether a server could listen there at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As PostgreSQL itself does: connections in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose() -> int:
    """A port that is free now.

    By chance and not the lowest: two that choose at once seldom meet, and a cluster that is
    stopped seldom finds its port taken by a younger one.
    """
    for _ in range(1000):
        port = random.choice(_RANGE)  # noqa: S311 - not a secret
        if is_free(port):
            return port
    raise UserError(
        f"No free port found on {HOST} between {_RANGE.start} and {_RANGE.stop - 1}",
        "Stop some local clusters",
        code=Code.LOCAL_CLUSTER,
    )
