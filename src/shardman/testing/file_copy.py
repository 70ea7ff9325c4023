"""A copy of a node's files that runs beside the original."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from shardman.local.server import Server, StopMode
from shardman.testing.cluster import Cluster


@contextmanager
def copy_beside(cluster: Cluster, node: int, *, first: bool) -> Iterator[Server]:
    """A copy of a node, taken while that was stopped; gone afterwards.

    Args:
        first: whether the copy starts before the original does, which lets it take what is the node's.
    """
    original = cluster.local.server(node)
    data = cluster.local.directory / f"copy_of_{node}"
    cluster.stop_node(node)
    try:
        subprocess.run(["cp", "-a", original.data, data], check=True)
        (data / "postmaster.pid").unlink(missing_ok=True)
        # As a stock server has it: our own try again five times a second.
        settings = {**original.settings, "wal_retrieve_retry_interval": "5s"}
        log = cluster.local.directory / "log" / "copy.log"
        made = replace(original, name="copy", data=data, log=log, port=None, settings=settings)
        if first:
            made.start()
    finally:
        cluster.start_node(node)
    try:
        if not first:
            made.start()
        yield made
    finally:
        made.stop(StopMode.IMMEDIATE)
        shutil.rmtree(data)
