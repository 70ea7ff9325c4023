"""What a server must offer to take part."""

from __future__ import annotations

from collections.abc import Mapping

from shardman.errors import Code, UserError
from shardman.pg import rights
from shardman.pg.connection import Connection

MIN_VERSION = 150000

#: Least values of settings. Each node may need a slot and a walsender for each other one.
LEAST: Mapping[str, int] = {
    "max_prepared_transactions": 1,
    "max_replication_slots": 2,
    "max_wal_senders": 2,
    "max_logical_replication_workers": 2,
    "max_worker_processes": 4,
    "max_active_replication_origins": 2,  # from 18 on
}


async def requirements(conn: Connection) -> None:
    """Checks version, settings, rights and extensions.

    Raises:
        UserError: names every setting that does not do, the value found and the value needed.
    """
    for check in _CHECKS:
        await check(conn)


async def unmet(conn: Connection) -> list[UserError]:
    """All that `requirements` would raise, one after the other."""
    found = []
    for check in _CHECKS:
        try:
            await check(conn)
        except UserError as error:
            found.append(error)
    return found


async def _version(conn: Connection) -> None:
    if conn.info.server_version < MIN_VERSION:
        raise UserError(
            f"the server is PostgreSQL {conn.info.server_version // 10000}, 15 is needed",
            "Upgrade the server",
            code=Code.SERVER_UNSUITABLE,
        )


async def _primary(conn: Connection) -> None:
    row = await (await conn.execute("select pg_is_in_recovery()")).fetchone()
    if row is not None and row[0]:
        raise UserError("the server is a standby", "Give its primary", code=Code.SERVER_UNSUITABLE)


async def _settings(conn: Connection) -> None:
    cur = await conn.execute(
        "select name, setting from pg_settings where name = any(%s)", (["wal_level", *LEAST],)
    )
    found = {row[0]: row[1] for row in await cur.fetchall()}
    if not (faults := too_little(found)):
        return
    said = [
        f"{name} is {found[name]}, {'' if name == 'wal_level' else 'at least '}{needed} is needed"
        for name, needed in faults
    ]
    raise UserError(
        "; ".join(said),
        "Change the server's configuration and restart it; docs/operations.md has good values",
        code=Code.SERVER_UNSUITABLE,
    )


def too_little(found: Mapping[str, str]) -> list[tuple[str, str]]:
    """The settings that do not do, each with the value that is needed; of those that the server has."""
    faults = [] if found["wal_level"] == "logical" else [("wal_level", "logical")]
    return faults + [(name, str(n)) for name, n in LEAST.items() if int(found.get(name, n)) < n]


async def _extension(conn: Connection) -> None:
    cur = await conn.execute(
        "select exists (select from pg_available_extensions where name = 'postgres_fdw')"
    )
    if await cur.fetchone() != (True,):
        raise UserError(
            "the extension postgres_fdw is not installed on the server",
            "Install PostgreSQL's contrib package there",
            code=Code.SERVER_UNSUITABLE,
        )


_CHECKS = (_version, _primary, _settings, _extension, rights.require)
