"""What a plain database has at a moment, for statements that name what there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardman.pg.connection import SyncConnection


@dataclass(frozen=True)
class Table:
    """One table: names as they are written, in the order of their making.

    Attributes:
        columns: name → type.
        keys: the columns that must not go, by which its rows are distributed.
        checks: whatever ALTER TABLE … CONSTRAINT may name, by kind.
    """

    name: str
    bare: str
    columns: dict[str, str]
    keys: tuple[str, ...]
    constraints: dict[str, str]
    indexes: tuple[str, ...]
    policies: tuple[str, ...]
    statistics: tuple[str, ...]
    shared: bool

    @property
    def others(self) -> list[str]:
        """Columns that rows are not distributed by."""
        return [c for c in self.columns if c not in self.keys]


@dataclass(frozen=True)
class Shape:
    """A database: its tables by what they were first called, and what stands beside them."""

    tables: dict[str, Table]
    views: tuple[str, ...]
    labels: tuple[str, ...]
    other_schema: str
    schema: str


COLUMNS = """
select quote_ident(attname),
       format_type(atttypid, atttypmod) || case when attgenerated = '' then '' else ' generated' end
  from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped order by attnum
"""
CONSTRAINTS = """
select quote_ident(conname), contype::text from pg_constraint
 where conrelid = %s and contype <> 'n' order by oid
"""
INDEXES = """
select i.indexrelid::regclass::text from pg_index i
 where i.indrelid = %s and not exists (select from pg_constraint o where o.conindid = i.indexrelid)
 order by i.indexrelid
"""
POLICIES = "select quote_ident(polname) from pg_policy where polrelid = %s order by oid"
STATISTICS = """
select format('%%I.%%I', n.nspname, s.stxname)
  from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace
 where s.stxrelid = %s order by s.oid
"""
VIEWS = """
select oid::regclass::text from pg_class
 where relkind = 'v' and relnamespace = any (%s::regnamespace[]) order by oid
"""
LABELS = """
select enumlabel from pg_enum e join pg_type t on t.oid = e.enumtypid
 where t.typname = 'mood' and typnamespace = %s::regnamespace order by enumsortorder
"""
NAMES = "select %s::regclass::text, quote_ident(relname) from pg_class where oid = %s"
KEY = "select quote_ident(attname) from pg_attribute where attrelid = %s and attnum = %s"


def read_shape(
    plain: SyncConnection, oids: dict[str, int], keys: dict[str, int], schema: str
) -> Shape:
    """What is there now.

    Args:
        oids: the tables, by what they were first called.
        keys: the attnum of the column by which each is distributed, of the sharded ones.
    """

    def ask(query: str, *params: Any) -> list[Any]:
        return plain.execute(query.encode(), params).fetchall()

    tables = {}
    for first, oid in oids.items():
        ((name, bare),) = ask(NAMES, oid, oid)
        key = ask(KEY, oid, keys[first])
        tables[first] = Table(
            name=name,
            bare=bare,
            columns=dict(ask(COLUMNS, oid)),
            keys=tuple(row[0] for row in key),
            constraints=dict(ask(CONSTRAINTS, oid)),
            indexes=tuple(row[0] for row in ask(INDEXES, oid)),
            policies=tuple(row[0] for row in ask(POLICIES, oid)),
            statistics=tuple(row[0] for row in ask(STATISTICS, oid)),
            shared=first == "country",
        )
    both = [schema, f"{schema}b"]
    return Shape(
        tables=tables,
        views=tuple(row[0] for row in ask(VIEWS, both)),
        labels=tuple(row[0] for row in ask(LABELS, schema)),
        schema=schema,
        other_schema=f"{schema}b",
    )
