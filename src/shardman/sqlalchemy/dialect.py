"""The dialects, which are SQLAlchemy's for psycopg but for who connects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg.types import TypeInfo
from sqlalchemy import URL, util
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
from sqlalchemy.engine import reflection

from shardman.client.async_connection import AsyncConnection
from shardman.client.connection import connect
from shardman.sql.loader import queries


def _yes(value: Any) -> bool:
    return bool(util.asbool(value))


#: Options of `shardman.connect` that a URL may have, and of which type they are.
_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "fanout": str,
    "atomic": _yes,
    "refresh_seconds": float,
    "prepare_threshold": int,
}


class _Common:
    """What both have in common."""

    driver = "shardman"
    supports_statement_cache = True

    def create_connect_args(self, url: URL) -> Any:
        args, options = super().create_connect_args(url)  # type: ignore[misc]
        for name, kind in _OPTIONS.items():
            if name in options:
                options[name] = kind(options[name])
        return args, options

    @reflection.cache
    def get_table_names(self, connection: Any, schema: str | None = None, **kw: Any) -> list[str]:
        """The tables, without partitions and what holds their rows."""
        names = super().get_table_names(connection, schema=schema, **kw)  # type: ignore[misc]
        of = schema or self.default_schema_name  # type: ignore[attr-defined]
        rows = connection.exec_driver_sql(queries("client")["inner_tables"])
        inner = {name for where, name, _visible in rows if where == of}
        return [name for name in names if name not in inner]


class ShardmanDialect(_Common, PGDialect_psycopg):
    """`postgresql+shardman`."""

    supports_statement_cache = True

    def connect(self, *args: Any, **options: Any) -> Any:
        return connect(*args, **options)

    def _type_info_fetch(self, connection: Any, name: str) -> Any:
        db = connection.connection.driver_connection
        return TypeInfo.fetch(db.drive(db.router.on_here()), name)

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> Any:  # noqa: ARG003 - SQLAlchemy's
        return ShardmanDialectAsync


class ShardmanDialectAsync(_Common, PGDialectAsync_psycopg):
    """The same for `create_async_engine`."""

    supports_statement_cache = True

    def connect(self, *args: Any, **options: Any) -> Any:
        return self.loaded_dbapi.connect(*args, async_creator_fn=AsyncConnection.connect, **options)

    def _type_info_fetch(self, connection: Any, name: str) -> Any:
        db = connection.connection.driver_connection
        here = util.await_only(db.drive(db.router.on_here()))
        return util.await_only(TypeInfo.fetch(here, name))
