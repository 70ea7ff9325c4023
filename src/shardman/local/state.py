"""What a local cluster has to remember, in `DIR/local.json`; `cluster.json` and `pgpass` are for others."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shardman.errors import Code, UserError
from shardman.local.ports import HOST
from shardman.local.programs import Programs

STATE = "local.json"
DESCRIPTION = "cluster.json"
#: A password file of libpq's, for the connection strings that are shown.
PASSFILE = "pgpass"
_FORMAT = 1


@dataclass
class ServerState:
    """One server: its directory's name, its port once chosen, its node id once it is a node."""

    name: str
    number: int
    port: int | None = None
    added_id: int | None = None

    @property
    def node_id(self) -> int:
        """The node's id; before it is a node, its number among the servers."""
        return self.number if self.added_id is None else self.added_id


@dataclass
class ProcessState:
    """A process that we started, and when: its id alone may belong to a stranger by now."""

    pid: int
    started: str


@dataclass
class State:
    """Everything that one command must know of what another did."""

    bin: str
    version: str
    fsync: bool = True
    stock: bool = False
    settings: dict[str, str | int] = field(default_factory=dict)
    servers: list[ServerState] = field(default_factory=list)
    shardlord: ProcessState | None = None
    #: Of the superuser on every server; None in a directory of version 0.1, whose servers ask for none.
    password: str | None = None

    @classmethod
    def new(
        cls, programs: Programs, *, fsync: bool, stock: bool, settings: dict[str, str | int]
    ) -> State:
        """A cluster without servers, and a random password for those to come."""
        return cls(
            str(programs.bin),
            programs.version,
            fsync,
            stock,
            settings,
            password=secrets.token_hex(16),
        )

    @property
    def programs(self) -> Programs:
        """The server programs."""
        return Programs(Path(self.bin), self.version)

    def use(self, programs: Programs) -> None:
        """Other programs from now on."""
        self.bin, self.version = str(programs.bin), programs.version

    def add_server(self, number: int) -> None:
        """One more; number 0 is the lord's."""
        name = "lord" if number == 0 else f"worker-{number}"
        self.servers.append(ServerState(name, number))

    @classmethod
    def load(cls, directory: Path) -> State:
        """Read it back."""
        raw: dict[str, Any] = json.loads((directory / STATE).read_text())
        if raw.pop("format", None) != _FORMAT:
            raise UserError(
                f"{directory / STATE} was written by another version of shardman",
                "Use that version, or remove the directory",
                code=Code.LOCAL_CLUSTER,
            )
        servers = [ServerState(**each) for each in raw.pop("servers")]
        shardlord = raw.pop("shardlord")
        return cls(**raw, servers=servers, shardlord=shardlord and ProcessState(**shardlord))

    def save(self, directory: Path) -> None:
        """Replace the file as a whole: a crash leaves the old one or the new one."""
        _write(directory / STATE, {"format": _FORMAT, **asdict(self)})

    def describe(self, directory: Path, description: dict[str, Any]) -> None:
        """Write the file that others read."""
        _write(directory / DESCRIPTION, description)
        if self.password is not None:
            write_private(directory / PASSFILE, f"{HOST}:*:*:postgres:{self.password}\n")


def _write(path: Path, content: dict[str, Any]) -> None:
    write_private(path, json.dumps(content, indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole; nobody but its owner ever reads it: it may hold a password."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
