"""What autogenerate is not to see of sharded tables: docs/operations.md has this filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, text

PARTS = """
select c.relname from pg_class c
 where c.relispartition or exists (
       select from pg_constraint o where o.conrelid = c.oid and o.conname = 'shardman_partition')
"""
SHARDED = "select c.relname from pg_class c where c.relkind = 'p' and not c.relispartition"


def filters(connection: Connection) -> dict[str, Callable[..., bool]]:
    parts, sharded = (set(connection.scalars(text(q))) for q in (PARTS, SHARDED))
    connection.rollback()

    def include_name(name: str | None, type_: str, _parents: Any) -> bool:
        return type_ != "table" or name not in parts

    def include_object(
        thing: Any, _name: str | None, type_: str, reflected: bool, _compare_to: Any
    ) -> bool:
        # Its data tables have foreign keys, the table shows none; identity columns have become defaults.
        hidden = type_ == "foreign_key_constraint" or (type_ == "column" and thing.identity)
        return reflected or not hidden or thing.table.name not in sharded

    return {"include_name": include_name, "include_object": include_object}
