"""Tables that were set aside, on all nodes, and which of them may be dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg

from shardman.model.set_aside import why_kept
from shardman.nodes.reach import NodeError, Reach
from shardman.pg.connection import SyncConnection
from shardman.pg.wording import in_words
from shardman.sql.loader import queries


@dataclass(frozen=True)
class Aside:
    """A table that was set aside.

    Args:
        part_name: the partition whose copy it was; None when the cluster has none of that name.
        cmd_type: the command that put it there; one that `add_node` found may be another cluster's.
        bytes: with its indexes; None while somebody has it for himself.
        rows: an estimate; None when there is none.
        kept: why it must not be dropped; None when nothing speaks against it.
        dropped: whether it was.
    """

    node: int
    schema_name: str
    table_name: str
    part_name: str | None
    cmd_id: int
    cmd_type: str
    since: datetime | None
    bytes: int | None
    rows: int | None
    kept: str | None = None
    dropped: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.schema_name}.{self.table_name}"


@dataclass(frozen=True)
class Found:
    """What there is, and the nodes that could not be asked."""

    tables: tuple[Aside, ...]
    away: tuple[NodeError, ...]


def find(reach: Reach, nodes: Iterable[int] | None = None, *, found: bool = False) -> Found:
    """Looks on all nodes, or on some.

    Args:
        found: let those be dropped, too, that `add_node` found on a server.

    Raises:
        UserError: the lord's database, where the truth about primaries is, cannot be reached.
    """
    named = queries("clean")
    with reach.open(reach.lord) as lord:
        primaries = {r["part_name"]: r["owner"] for r in lord.execute(named["primaries"])}
    answers = reach.everywhere(
        lambda _, session: (
            session.execute(named["aside"]).fetchall(),
            session.execute(named["here"]).fetchall(),
        )
    )
    served = {
        (row["part_name"], node)
        for node, answer in answers.items()
        if not isinstance(answer, NodeError)
        for row in answer[1]
    }
    wanted = set(answers) if nodes is None else set(nodes)
    tables = [
        Aside(node=node, **row)
        for node, answer in answers.items()
        if node in wanted and not isinstance(answer, NodeError)
        for row in answer[0]
    ]
    return Found(
        tuple(replace(t, kept=_why_kept(t, primaries, served, found=found)) for t in tables),
        tuple(a for n, a in answers.items() if n in wanted and isinstance(a, NodeError)),
    )


def _why_kept(
    table: Aside, primaries: Mapping[str, int], served: set[tuple[str, int]], *, found: bool
) -> str | None:
    owner = primaries.get(table.part_name or "")
    return why_kept(
        table.part_name,
        table.cmd_type,
        owner,
        served=(table.part_name, owner) in served,
        found=found,
    )


def drop(reach: Reach, tables: Iterable[Aside]) -> list[Aside]:
    """Drops those that nothing speaks against; each node looks at its tables once more.

    Returns:
        all of them, with what became of each.
    """
    listed = list(tables)
    nodes = {t.node for t in listed if t.kept is None}
    done = reach.everywhere(
        lambda node, session: [
            _drop(session, t) for t in listed if t.node == node and t.kept is None
        ],
        nodes,
    )
    ended: dict[tuple[int, str, str], Aside] = {}
    for node, answer in done.items():
        if isinstance(answer, NodeError):
            mine = (t for t in listed if t.node == node and t.kept is None)
            answers = [replace(t, kept=answer.problem) for t in mine]
        else:
            answers = answer
        ended |= {(t.node, t.schema_name, t.table_name): t for t in answers}
    return [ended.get((t.node, t.schema_name, t.table_name), t) for t in listed]


def _drop(session: SyncConnection, table: Aside) -> Aside:
    arguments: dict[str, Any] = {"schema": table.schema_name, "table": table.table_name}
    try:
        session.execute(queries("clean")["drop"], arguments)
    except psycopg.Error as error:
        return replace(table, kept=in_words(error).what)
    return replace(table, dropped=True)
