"""An application's tables as data: what `shardman distribute` reads of a database and decides by.

Names are written as in SQL: those of tables as in the metadata, those of columns and constraints quoted where
they have to be.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

PLAIN, SHARED, SHARDED = "plain", "shared", "sharded"

_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_COLUMNS = re.compile(rf"\s*{_NAME}\s*(?:,\s*{_NAME}\s*)*")
_WISH = re.compile(r'((?:[^"=]|"(?:[^"]|"")*")+)=\s*(\S.*)', re.DOTALL)

#: What PostgreSQL makes small in a name without quotes, on servers with UTF-8.
_FOLDED = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def plain_name(written: str) -> str:
    """A name as the catalog has it, of one as in SQL."""
    if written.startswith('"'):
        return written[1:-1].replace('""', '"')
    return written.translate(_FOLDED)


def split_wish(word: str) -> tuple[str, str] | None:
    """Table and column of ``TABLE=COLUMN``, where quotes may hold an = as well; None: it is not so written."""
    found = _WISH.fullmatch(word)
    return (found[1].strip(), found[2].strip()) if found and found[1].strip() else None


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        shardable: rows can be told by its hash, which is the same on every server.
        nullable: it may be NULL.
    """

    name: str
    type: str
    shardable: bool = True
    nullable: bool = False


@dataclass(frozen=True)
class Key:
    """What is unique in a table.

    Args:
        constraint: whether ALTER TABLE made it, not CREATE UNIQUE INDEX.
        columns: those that are compared; of an exclusion constraint, those that have to be equal.
        simple: whether it is nothing but those columns, so that one with a column more can be written down.
    """

    name: str
    columns: tuple[str, ...]
    primary: bool = False
    constraint: bool = True
    simple: bool = True


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key of ``table``.

    Args:
        writes: the columns of the table that an action of it gives other values.
        sound: whether it is enforced and has been validated.
        dropped: whether it is noted down, and not there: its tables are being sharded.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    definition: str = ""
    writes: tuple[str, ...] = ()
    sound: bool = True
    dropped: bool = False

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Which column refers to which."""
        return tuple(zip(self.columns, self.target_columns, strict=True))

    @property
    def plain_name(self) -> str:
        """Its name as the catalog has it."""
        return plain_name(self.name)

    @property
    def drop_sql(self) -> str:
        return f"ALTER TABLE {self.table} DROP CONSTRAINT {self.name}"


@dataclass(frozen=True)
class Table:
    """A table, as it is now.

    Args:
        partitioned: by its owner, not by us.
        state: what it is in the cluster.
        by: of a sharded one, by what.
        group: of a sharded one, the name of the first table of those that it is colocated with.
    """

    name: str
    bytes: int = 0
    rows: int = 0
    columns: tuple[Column, ...] = ()
    keys: tuple[Key, ...] = ()
    partitioned: bool = False
    state: str = PLAIN
    by: str | None = None
    partitions: int | None = None
    group: str | None = None

    @cached_property
    def types(self) -> Mapping[str, str]:
        """The types of its columns, by name."""
        return {c.name: c.type for c in self.columns}

    @property
    def primary(self) -> Key | None:
        return next((k for k in self.keys if k.primary), None)

    @cached_property
    def _spelled(self) -> Mapping[str, str]:
        """Its columns as they are written here, by their names in the catalog."""
        return {plain_name(c.name): c.name for c in self.columns}

    def columns_of(self, by: str | None) -> tuple[str, ...] | None:
        """The columns of what it is, or might be, sharded by; None: that is an expression.

        Quotes that PostgreSQL could do without, and capitals without quotes, name the same column.
        """
        if not _COLUMNS.fullmatch(by or ""):
            return None
        names = [found[0] for found in re.finditer(_NAME, by or "")]
        return tuple(self._spelled.get(plain_name(n), n) for n in names)

    def lacking(self, by: Sequence[str]) -> list[Key]:
        """The keys that no single partition could watch over."""
        return [k for k in self.keys if not set(by) <= set(k.columns)]


@dataclass(frozen=True)
class Statement:
    """A statement that was sent, and how often."""

    text: str
    calls: int

    def names(self, word: str) -> bool:
        return re.search(rf"(?<![\w$]){re.escape(word)}(?![\w$])", self.text) is not None


@dataclass(frozen=True)
class Application:
    """The tables of one node's database, and what is between them."""

    tables: Mapping[str, Table]
    foreign_keys: tuple[ForeignKey, ...] = ()
    workers: int = 1
    statements: tuple[Statement, ...] = field(default=(), repr=False)

    def referring(self, table: str) -> list[ForeignKey]:
        """The foreign keys to a table."""
        return [f for f in self.foreign_keys if f.target == table]

    def references(self, table: str) -> list[ForeignKey]:
        """The foreign keys of a table."""
        return [f for f in self.foreign_keys if f.table == table]

    def calls(self, table: str, column: str) -> int:
        """How often statements have compared a column of a table with a value."""
        short = table.rpartition(".")[2]
        asked = re.compile(rf"(?<![\w$]){re.escape(column)}\s*=\s*\$\d")
        return sum(s.calls for s in self.statements if s.names(short) and asked.search(s.text))

    def writes(self, table: str) -> int:
        """How often statements have written to a table."""
        short = re.escape(table.rpartition(".")[2])
        wrote = re.compile(
            rf"^\s*(?:insert\s+into|update|delete\s+from|merge\s+into)\s+(?:only\s+)?(?:{_NAME}\.)?{short}(?![\w$])",
            re.IGNORECASE,
        )
        return sum(s.calls for s in self.statements if wrote.match(s.text))
