"""A file system of its own for a node, small enough to be filled."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

from shardman.testing.cluster import Cluster

_FILLER = "filler"
_CHUNK = 65536


class NoDiskError(Exception):
    """No file system can be mounted here; says why."""


class SmallDisk:
    """A tmpfs below a node's data directory. Only root may mount one.

    Args:
        megabytes: of room, the node's files included.

    Raises:
        NoDiskError: the system does not let us mount; the node is as it was.
    """

    def __init__(self, cluster: Cluster, node: int, megabytes: int) -> None:
        self._cluster = cluster
        self.node = node
        self._data = Path(cluster.local.server(node).data)
        if os.geteuid() != 0:
            raise NoDiskError("only root may mount a file system")
        owner, aside = self._data.stat(), self._data.with_name(f"{self._data.name}.aside")
        cluster.stop_node(node)
        self._data.rename(aside)
        self._data.mkdir()
        how = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(self._data)]
        mounted = subprocess.run(how, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            self._data.rmdir()
            aside.rename(self._data)
            cluster.start_node(node)
            raise NoDiskError(mounted.stderr.strip())
        try:
            subprocess.run(["cp", "-a", f"{aside}/.", str(self._data)], check=True)
            os.chown(self._data, owner.st_uid, owner.st_gid)
            self._data.chmod(0o700)
            shutil.rmtree(aside)
            cluster.start_node(node)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server and unmounts: nothing of either is left."""
        with suppress(Exception):
            self._cluster.kill_node(self.node)
        subprocess.run(["umount", "-l", str(self._data)], check=True)

    def fill(self) -> None:
        """No byte is left. To be called again when the server may have freed something."""
        with (self._data / _FILLER).open("ab", buffering=0) as file, suppress(OSError):
            size = file.tell()
            free = os.statvfs(self._data)
            # At once, for gigabytes take a while to be written.
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), size, max(free.f_bfree * free.f_bsize, 1))
            file.seek(0, os.SEEK_END)
            while True:
                file.write(b"x" * _CHUNK)

    def empty(self) -> None:
        """There is room again; a server that has ended meanwhile is started."""
        (self._data / _FILLER).unlink()
        self._cluster.start_node(self.node)
