"""The backend `shardman.django`: Django's for PostgreSQL but for who connects."""

from __future__ import annotations

from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql import base, introspection, operations
from django.db.backends.postgresql.psycopg_any import register_tzloader
from django.db.models import AutoField
from psycopg import sql
from psycopg.pq import Format

from shardman.client.connection import connect
from shardman.client.cursors import Cursor
from shardman.sql.loader import queries


class _Database:
    """psycopg, but for who connects: Django finds its errors here, and `connect`."""

    connect = staticmethod(connect)

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg, name)


class DatabaseIntrospection(introspection.DatabaseIntrospection):  # type: ignore[misc]
    """Without partitions and what holds their rows."""

    def get_table_list(self, cursor: Any) -> Any:
        cursor.execute(queries("client")["inner_tables"])
        inner = {name for _schema, name, visible in cursor.fetchall() if visible}
        return [table for table in super().get_table_list(cursor) if table.name not in inner]


class DatabaseOperations(operations.DatabaseOperations):  # type: ignore[misc]
    """Sequences have a range of numbers for each node, and refuse all others: those that `loaddata` and its
    like set go on behind the rows of this node's range, whatever numbers others have given."""

    def sequence_reset_sql(self, style: Any, model_list: Any) -> list[str]:
        """Statements that set the sequences of models' keys behind the rows that there are."""
        found = []
        for model in model_list:
            described = model._meta  # noqa: SLF001 - Django's public interface, whatever its name
            fields = (f for f in described.local_fields if isinstance(f, AutoField))
            if field := next(fields, None):
                found.append((described.db_table, field.column))
        return [self._set_sequence("after_rows", *each) for each in found]

    def sequence_reset_by_name_sql(self, style: Any, sequences: Any) -> list[str]:
        """Statements that set sequences to where they begin."""
        return [
            self._set_sequence("to_beginning", each["table"], each["column"] or "id")
            for each in sequences
        ]

    def _set_sequence(self, query: str, table: str, column: str) -> str:
        names = {
            "table": sql.Identifier(table),
            "column": sql.Identifier(column),
            "named": sql.Literal(self.quote_name(table)),
            "column_name": sql.Literal(column),
        }
        return sql.SQL(queries("django")[query]).format(**names).as_string() + ";"


class _Cursor(Cursor):
    """With what Django's own cursors have beside psycopg's."""

    def callproc(self, name: Any, args: Any = None) -> Any:
        """Calls a function."""
        called = name if isinstance(name, sql.Identifier) else sql.Identifier(name)
        values = sql.SQL(", ").join(map(sql.Literal, args or ()))
        self.execute(sql.SQL("SELECT * FROM {}({})").format(called, values))
        return args


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]
    """A connection to the cluster."""

    display_name = "PostgreSQL, sharded"
    Database = _Database()
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations

    @property
    def pool(self) -> None:
        """None: psycopg_pool makes psycopg's connections.

        Raises:
            ImproperlyConfigured: one is asked for.
        """
        if self.settings_dict["OPTIONS"].get("pool"):
            raise ImproperlyConfigured(
                "OPTIONS['pool'] makes connections that know no partitions."
                " Set CONN_MAX_AGE, which keeps one for each thread"
            )

    def get_connection_params(self) -> dict[str, Any]:
        """With what Django would SET afterwards: the other nodes' sessions have it from the beginning."""
        params: dict[str, Any] = super().get_connection_params()
        settings = {"TimeZone": self.timezone_name}
        role = self.settings_dict["OPTIONS"].get("assume_role")
        if role:
            settings["role"] = role
        given = [params.get("options", "")]
        given += [f"-c {name}={_escaped(value)}" for name, value in settings.items() if value]
        params["options"] = " ".join(filter(None, given))
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connects to the first host that answers."""
        connection = super().get_new_connection(conn_params)
        if not self.settings_dict["OPTIONS"].get("server_side_binding"):
            connection.server_cursor_factory = base.ServerSideCursor
        return connection

    def _configure_role(self, connection: Any) -> bool:
        return False

    def create_cursor(self, name: str | None = None) -> Any:
        """A cursor; with a name one of the server."""
        db = self.connection
        if name:
            cursor = db.cursor(name, scrollable=False, withhold=db.autocommit)
        else:
            cursor = _Cursor(db, db.row_factory, binary=False)
        loader = db.adapters.get_loader(base.TIMESTAMPTZ_OID, Format.TEXT)
        if self.timezone != loader.timezone:
            register_tzloader(self.timezone, cursor)
        return cursor


def _escaped(value: str) -> str:
    """As libpq wants it in ``options``."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
