"""What a local cluster has to remember, in `DIR/local.json`; `DIR/cluster.json` is for others."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shardman.errors import UserError
from shardman.local.programs import Programs

STATE = "local.json"
DESCRIPTION = "cluster.json"
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
    settings: dict[str, str | int] = field(default_factory=dict)
    servers: list[ServerState] = field(default_factory=list)
    shardlord: ProcessState | None = None

    @classmethod
    def new(cls, programs: Programs, *, fsync: bool, settings: dict[str, str | int]) -> State:
        """A cluster without servers."""
        return cls(str(programs.bin), programs.version, fsync, settings)

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


def _write(path: Path, content: dict[str, Any]) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=2) + "\n")
    new.replace(path)
