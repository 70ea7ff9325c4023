"""What an error of one partition is about, by the names that the whole table has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.pq import DiagnosticField

from shardman.client.inner import set_result
from shardman.client.routing.picture import Picture

_DATA = re.compile(r"(.+)_([0-9]+)_data")
#: Of keys, which each partition has by a name of its own; a CHECK has the same name everywhere.
_OF_KEYS = ("23503", "23505", "23P01")
#: A longer name was cut, see shardman.numbered_name.
_MOST_BYTES = 63


class _Renamed:
    """A result whose error has other names. What is not defined here is the result's."""

    def __init__(self, result: Any, names: Mapping[DiagnosticField, bytes]) -> None:
        self._result = result
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._result, name)

    def error_field(self, field: DiagnosticField) -> bytes | None:
        found: bytes | None = self._names.get(field) or self._result.error_field(field)
        return found


def as_of_the_table(error: psycopg.Error, picture: Picture) -> None:
    """Lets `error.diag` name the table, and its key, where a partition of it was named."""
    diag = error.diag
    found = _DATA.fullmatch(diag.table_name or "")
    if found is None or error.pgresult is None:
        return
    name, number = found.groups()
    table = picture.named.get((diag.schema_name or "", name))
    if table is None or int(number) >= len(table.parts):
        return
    names = {DiagnosticField.TABLE_NAME: name.encode()}
    constraint = diag.constraint_name or ""
    is_whole = constraint.endswith(f"_{number}") and len(constraint.encode()) < _MOST_BYTES
    if error.sqlstate in _OF_KEYS and is_whole:
        names[DiagnosticField.CONSTRAINT_NAME] = constraint.removesuffix(f"_{number}").encode()
    set_result(error, _Renamed(error.pgresult, names))
