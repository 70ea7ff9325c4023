"""What a FROM says: its tables, and its text for each partition."""

from __future__ import annotations

from dataclasses import dataclass, field

from shardman.client.routing.picture import Table, quoted
from shardman.client.routing.writing import Node


@dataclass(frozen=True)
class Source:
    """A table in FROM, and what it is called there."""

    alias: str
    table: Table

    def type(self, column: str) -> str:
        """Of a column; empty where it is not in the default collation, or not there."""
        types = dict(zip(self.table.columns, self.table.types, strict=True))
        return types.get(column, "")


@dataclass
class Joined:
    """What a FROM says.

    Args:
        sources: its tables.
        pieces: its text: a table stands where its name, or that of its partition, is to be written.
        merged: columns of USING, each with the aliases of the tables that have it, the first one's is shown.
        looks_up: shared tables are in its sub-selects.
    """

    sources: list[Source] = field(default_factory=list)
    pieces: list[str | Table] = field(default_factory=list)
    merged: dict[str, list[str]] = field(default_factory=dict)
    looks_up: bool = False

    @property
    def sharded(self) -> tuple[Table, ...]:
        """The sharded tables, each once."""
        return tuple(dict.fromkeys(s.table for s in self.sources if not s.table.shared))

    @property
    def shares(self) -> bool:
        """Whether a shared table is among them."""
        return self.looks_up or any(s.table.shared for s in self.sources)

    def text(self, number: int, *, data: bool = False) -> str:
        """The FROM of one partition, in a text with placeholders; ``data``: of the table with its rows."""
        return "".join(p if isinstance(p, str) else _name(p, number, data) for p in self.pieces)

    def column(self, node: Node) -> tuple[Source, str] | None:
        """The column of a table that a name means; None: of none, or of several."""
        names = [str(f.get("String", {}).get("sval", "")) for f in node["ColumnRef"]["fields"]]
        *alias, name = names
        found = [s for s in self.sources if name in s.table.columns and alias in ([], [s.alias])]
        if not alias and name in self.merged and {s.alias for s in found} <= {*self.merged[name]}:
            found = [s for s in found if s.alias == self.merged[name][0]]
        return (found[0], name) if len(found) == 1 else None


def _name(table: Table, number: int, data: bool) -> str:
    if table.shared:
        name = quoted(table.schema, table.name)
    else:
        part = table.parts[number]
        name = part.data if data else part.name
    return name.replace("%", "%%")
