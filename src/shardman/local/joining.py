"""Make running servers workers of a cluster, through the SQL that any user has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

import psycopg
from psycopg import conninfo

from shardman.errors import Code, UserError
from shardman.pg.connection import SyncConnection
from shardman.pg.conninfo import without_secrets

_SECONDS = 60


def add_nodes(lord_dsn: str, dsns: Sequence[str]) -> tuple[dict[str, int], UserError | None]:
    """Submits all, then waits for each: the lord decides what may run at the same time.

    Returns:
        The ids of those that are nodes now, and why the first of the others is none.
    """
    if not dsns:
        return {}, None
    refused: UserError | None = None
    try:
        with psycopg.connect(lord_dsn, autocommit=True) as lord:
            known = _known(lord)
            new = [dsn for dsn in dsns if _address(dsn) not in known]
            submitted = [(dsn, _submit(lord, dsn)) for dsn in new]
            for dsn, cmd_id in submitted:
                try:
                    _wait(lord, dsn, cmd_id)
                except UserError as error:
                    refused = refused or error
            known = _known(lord)
    except psycopg.Error as error:
        raise UserError(
            f"Cannot add workers to {without_secrets(lord_dsn)}: {error}", code=Code.LOCAL_CLUSTER
        ) from error
    return {dsn: known[_address(dsn)] for dsn in dsns if _address(dsn) in known}, refused


def _submit(lord: SyncConnection, dsn: str) -> int:
    return int(str(_one(lord, "select shardman.add_node(%s)", (dsn,))))


def _wait(lord: SyncConnection, dsn: str, cmd_id: int) -> None:
    wait: LiteralString = "select shardman.cmd_wait(%s, make_interval(secs => %s))::text"
    status = str(_one(lord, wait, (cmd_id, _SECONDS)))
    if status == "success":
        return
    error = _one(lord, "select error from shardman.cmd_log where id = %s", (cmd_id,))
    reason = str(error) if error else f"after {_SECONDS} s the command {cmd_id} is {status!r}"
    raise UserError(
        f"The worker {without_secrets(dsn)} cannot be added: {reason}", code=Code.LOCAL_CLUSTER
    )


def _known(lord: SyncConnection) -> dict[tuple[str, str], int]:
    """The nodes there are, by address: the stored string need not be the one that was given."""
    rows = lord.execute(
        "select connstring, id from shardman.nodes where worker_status = 'active' order by id"
    )
    return {_address(connstring): int(node_id) for connstring, node_id in rows}


def _address(dsn: str) -> tuple[str, str]:
    parts = conninfo.conninfo_to_dict(dsn)
    return str(parts.get("host")), str(parts.get("port"))


def _one(lord: SyncConnection, query: LiteralString, params: Sequence[object]) -> object:
    row = lord.execute(query, params).fetchone()
    return row[0] if row else None
