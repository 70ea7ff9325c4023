"""The table that rows are loaded into, or come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import errors, sql

from shardman.client.loading.driver import Driver
from shardman.client.routing.picture import Table
from shardman.sql.loader import queries


@dataclass(frozen=True)
class Target:
    """A table.

    Args:
        columns: that may be written, by name the type as casts write it.
        defaults: by name the expression.
        table: what is known of where its rows are; None of one that is not sharded.
        problem: why rows are not sent to their owners; empty when they are.
    """

    schema: str
    name: str
    columns: Mapping[str, str]
    defaults: Mapping[str, str]
    table: Table | None
    problem: str

    def check(self, names: Sequence[str], source: str) -> None:
        """Whether a source's columns are the table's.

        Raises:
            UndefinedColumn: one is not.
            DuplicateColumn: one is there twice.
        """
        for name in names:
            if name not in self.columns:
                raise errors.UndefinedColumn(
                    f'{source} has a column "{name}", and the table {self.name} has none of this name that'
                    f" can be written. Its columns are {', '.join(self.columns)}: name those of the source"
                    " with columns=[…], or --columns"
                )
            if list(names).count(name) > 1:
                raise errors.DuplicateColumn(f'{source} has the column "{name}" more than once')

    def copy(self, columns: Sequence[str]) -> sql.Composed:
        """The statement that takes rows in."""
        return sql.SQL(queries("loading")["copy_in"]).format(
            sql.Identifier(self.schema, self.name), sql.SQL(", ").join(map(sql.Identifier, columns))
        )


def find(db: Driver, relation: str) -> Target:
    """Looks a table up on the node that was connected to.

    Args:
        relation: its name, as SQL has it.

    Raises:
        UndefinedTable: there is none.
    """
    router = db.router
    db.drive(router.refresh())
    row = db.drive(router.look("loading", "table", (relation,)))
    if row is None:
        raise errors.UndefinedTable(
            f"there is no table {relation}: look at its schema, and search_path"
        )
    found = router.picture.named.get((row["schema"], row["name"]))
    names = row["columns"] or []
    return Target(
        row["schema"],
        row["name"],
        dict(zip(names, row["types"] or [], strict=True)),
        {n: d for n, d in zip(names, row["defaults"] or [], strict=True) if d is not None},
        None if found is None or found.shared else found,
        _problem(found, names, router.picture.problem),
    )


def _problem(found: Table | None, columns: Sequence[str], general: str) -> str:
    if found is None:
        return "it is no sharded table"
    if found.shared:
        return "it is a shared table"
    missing = [c.name for c in found.key if c.name not in columns]
    return general or found.problem or (f"its key {missing[0]} is generated" if missing else "")
