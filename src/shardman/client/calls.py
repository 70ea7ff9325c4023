"""The call of a command's SQL function, its arguments by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import sql

from shardman.commands.registry import COMMANDS


def call(verb: str, arguments: Mapping[str, Any]) -> sql.Composed:
    """The statement that submits a command; the values are its named parameters, the id is its result.

    What has its default is left out: a node that has the schema of an older version may not know it yet.

    Args:
        verb: its name.
        arguments: all of them, by name.
    """
    given = [
        # With its type: a number that is too large for it is said to be that.
        sql.SQL("{} => {}::{}").format(
            sql.Identifier(a.name), sql.Placeholder(a.name), sql.SQL(a.sql_type)
        )
        for a in COMMANDS[verb].arguments()
        if a.required or arguments[a.name] != a.default
    ]
    return sql.SQL("select {}({}) as id").format(
        sql.Identifier("shardman", verb), sql.SQL(", ").join(given)
    )
