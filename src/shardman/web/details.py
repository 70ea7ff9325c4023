"""What the pages of one command, node or partition show beside the status. Each reads as whoever looks."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.nodes.reach import Reach
from shardman.nodes.status import Row
from shardman.pg.wording import scrub
from shardman.sql.loader import queries


@dataclass(frozen=True)
class CommandDetail:
    """A command, its steps, and the commands that are parts of it; None: there is no such command."""

    command: Row | None
    steps: list[Row]
    parts: list[Row]


def command(dsn: str, number: int) -> CommandDetail:
    """Asks the lord, or where it cannot be reached the node that was named."""
    asked = queries("web")
    with Reach(dsn) as reach:
        session = reach.here if reach.lord == reach.my_id else reach.open(reach.lord)
        with session:
            found = session.execute(asked["command"], (number,)).fetchone()
            steps = session.execute(asked["steps"], (number,)).fetchall()
            parts = session.execute(asked["parts"], (number,)).fetchall()
    return CommandDetail(found, steps, parts)


@dataclass(frozen=True)
class NodeDetail:
    """Who is on a node, what is prepared there, and where it differs from the metadata."""

    sessions: list[Row]
    in_doubt: list[Row]
    drift: list[Row]


def node(dsn: str, number: int) -> NodeDetail:
    """Asks the node.

    Raises:
        UserError: it cannot be reached.
    """
    asked = queries("web")
    with Reach(dsn) as reach, reach.open(number) as session:
        # Statements of others may carry passwords.
        sessions = [
            s | {"query": scrub(s["query"] or "")}
            for s in session.execute(asked["sessions"]).fetchall()
        ]
        return NodeDetail(
            sessions,
            session.execute(asked["in_doubt"]).fetchall(),
            session.execute(asked["drift"]).fetchall(),
        )


def traffic(dsn: str, part: str, number: int) -> Row | None:
    """What the server of a partition's primary has counted of it.

    Raises:
        UserError: it cannot be reached.
    """
    with Reach(dsn) as reach, reach.open(number) as session:
        return session.execute(queries("web")["traffic"], (part,)).fetchone()
