"""Shell completion of what only the cluster knows, asked of the node in $SHARDMAN_DSN.

A shell that hangs at the TAB key is worse than one that completes nothing: one second, no errors.
"""

from __future__ import annotations

import os
from typing import LiteralString

import psycopg
from rich.markup import escape

from shardman.errors import UserError
from shardman.pg.connect import connect


def relations(incomplete: str) -> list[str]:
    """Sharded tables."""
    return _first("select relation from shardman.tables order by 1", incomplete)


def partitions(incomplete: str) -> list[str]:
    """Partitions."""
    return _first(
        "select part_name from shardman.partitions where prv is null"
        " order by relation, length(part_name), part_name",
        incomplete,
    )


def workers(incomplete: str) -> list[tuple[str, str]]:
    """Node ids of active workers, with their addresses."""
    return _pairs(
        "select id::text, connstring from shardman.nodes where worker_status = 'active' order by id",
        incomplete,
    )


def commands(incomplete: str) -> list[tuple[str, str]]:
    """Ids of the newest commands."""
    return _pairs(
        "select id::text, concat_ws(' ', cmd_type, opts, '(' || status || ')')"
        " from shardman.commands order by id desc limit 20",
        incomplete,
    )


def _first(query: LiteralString, incomplete: str) -> list[str]:
    return [str(row[0]) for row in _ask(query) if str(row[0]).startswith(incomplete)]


def _pairs(query: LiteralString, incomplete: str) -> list[tuple[str, str]]:
    # What explains a candidate is printed as markup.
    return [(str(a), escape(str(b))) for a, b in _ask(query) if str(a).startswith(incomplete)]


def _ask(query: LiteralString) -> list[tuple[object, ...]]:
    dsn = os.environ.get("SHARDMAN_DSN")
    if not dsn:
        return []
    try:
        with connect(
            dsn,
            connect_timeout=1,
            row_factory=psycopg.rows.tuple_row,
        ) as node:
            node.execute("set statement_timeout = 1000")
            return node.execute(query).fetchall()
    except (UserError, psycopg.Error):
        return []
