"""Earlier releases: their schema and their shardlord, see README.md."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "releases"
NAMES = sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))

_INIT = """
import asyncio, sys
from shardman.pg.initialize import initialize
asyncio.run(initialize(sys.argv[1]))
"""
_INSTALL = """
import asyncio, sys, psycopg
from shardman.pg.schema import install
async def main():
    async with await psycopg.AsyncConnection.connect(sys.argv[1], autocommit=True) as conn:
        await install(conn)
asyncio.run(main())
"""
_LORD = "import sys; from shardman.lord.daemon import main; main(sys.argv[1])"


@dataclass(frozen=True)
class Release:
    """A release that was unpacked into a folder."""

    name: str
    folder: Path

    @classmethod
    def unpack(cls, name: str, folder: Path) -> Release:
        with tarfile.open(FOLDER / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        return cls(name, folder)

    def install(self, dsn: str) -> None:
        """Its schema in a database, as on a worker."""
        self._run(_INSTALL, dsn)

    def init(self, dsn: str) -> None:
        """As `shardman init` of that release."""
        self._run(_INIT, dsn)

    def start_lord(self, dsn: str, log: Path) -> subprocess.Popen[bytes]:
        """Its shardlord, which the caller ends."""
        with log.open("ab") as out:
            return subprocess.Popen(self._argv(_LORD, dsn), env=self._env, stderr=out, stdout=out)

    def _run(self, code: str, dsn: str) -> None:
        subprocess.run(self._argv(code, dsn), env=self._env, check=True, timeout=180)

    @staticmethod
    def _argv(code: str, dsn: str) -> list[str]:
        return [sys.executable, "-P", "-c", code, dsn]

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder / "src"), "PYTHONUNBUFFERED": "1"}
