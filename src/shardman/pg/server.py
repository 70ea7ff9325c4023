"""What a server must offer to take part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection

from shardman.errors import UserError

MIN_VERSION = 150000

#: Least values of settings. Each node may need a slot and a walsender for each other one.
LORD: Mapping[str, int] = {
    "max_prepared_transactions": 1,
    "max_replication_slots": 2,
    "max_wal_senders": 2,
}
WORKER: Mapping[str, int] = {
    **LORD,
    "max_logical_replication_workers": 2,
    "max_worker_processes": 4,
}


async def requirements(conn: AsyncConnection[Any], least: Mapping[str, int]) -> None:
    """Checks version, settings, rights and extensions.

    Args:
        least: the least values of settings, `LORD` or `WORKER`.

    Raises:
        UserError: names the setting, the value found and the value needed.
    """
    if conn.info.server_version < MIN_VERSION:
        raise UserError(
            f"the server is PostgreSQL {conn.info.server_version // 10000}, 15 is needed",
            "Upgrade the server",
        )
    found = await _settings(conn, ["wal_level", *least])
    if found["wal_level"] != "logical":
        raise UserError(
            f"wal_level is {found['wal_level']}, logical is needed",
            "Set wal_level = logical and restart the server",
        )
    for name, value in least.items():
        if int(found[name]) < value:
            raise UserError(
                f"{name} is {found[name]}, at least {value} is needed",
                f"Raise {name} and restart the server; docs/operations.md has good values",
            )
    await _rights(conn)


async def _settings(conn: AsyncConnection[Any], wanted: list[str]) -> dict[str, str]:
    cur = await conn.execute(
        "select name, setting from pg_settings where name = any(%s)", (wanted,)
    )
    return {row[0]: row[1] for row in await cur.fetchall()}


async def _rights(conn: AsyncConnection[Any]) -> None:
    row = await (
        await conn.execute(
            "select (select rolsuper from pg_roles where rolname = current_user),"
            " exists (select from pg_available_extensions where name = 'postgres_fdw'),"
            " pg_is_in_recovery()"
        )
    ).fetchone()
    assert row is not None
    superuser, available, standby = row
    if not available:
        raise UserError(
            "the extension postgres_fdw is not installed on the server",
            "Install PostgreSQL's contrib package there",
        )
    if standby:
        raise UserError("the server is a standby", "Give its primary")
    if not superuser:
        raise UserError(
            f"the role {conn.info.user} is not a superuser",
            "Connect as one; roles with fewer rights are not supported yet",
        )
