"""A question that nodes answer in parts: what each is asked, and what puts the answers together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shardman.client.routing.guards import guard
from shardman.client.routing.picture import Table
from shardman.client.routing.placeholders import Name
from shardman.client.routing.sources import Joined

#: More rows than these are not put together in memory.
MOST_ROWS = 200_000


@dataclass(frozen=True)
class Sort:
    """By what rows are sorted.

    Args:
        column: of the answer, from 0 on.
        oid: of its type.
    """

    column: int
    oid: int
    down: bool
    nulls_first: bool


@dataclass(frozen=True)
class Question:
    """A question that can be answered in parts.

    Args:
        tables: those that are sharded; partitions of one number are asked about together.
        parameters: which parameters %(p1)s, … are.
        columns: those that are read.
        joined: what they are read from.
        head: what is asked, up to FROM.
        tail: of what is asked, behind the condition.
        condition: in a text with placeholders: about the columns that are read, or, where tables are
            joined, about the tables.
        merge: what is made of the answers, up to FROM and behind it: columns c0, c1, … of q. Their types
            stand there as numbers between zero bytes, which are in no text.
        head_columns: how many columns are asked for.
        few: about groups, or the first rows; else about all rows that fulfil a condition.
        one_row: the answer is one row of aggregates, each of which is computed in parts.
        around: a select whose FROM it is, up to that and behind it, and what it is called there.
        sorts: by what rows are sorted; None where they cannot be merged elsewhere than in PostgreSQL.
    """

    tables: tuple[Table, ...]
    parameters: tuple[Name, ...]
    columns: tuple[str, ...]
    joined: Joined
    head: str
    condition: str
    tail: str
    merge: tuple[str, str]
    head_columns: int
    few: bool
    sorts: tuple[Sort, ...] | None = None
    one_row: bool = False
    around: tuple[str, str, str] | None = None
    texts: dict[tuple[tuple[int, ...], bool, bool], str] = field(default_factory=dict)

    @property
    def table(self) -> Table:
        """The one that says where partitions are."""
        return self.tables[0]

    def asked(
        self, numbers: tuple[int, ...], *, alone: bool = False, by_tables: bool = False
    ) -> str:
        """What a node is asked about some of the partitions.

        Args:
            alone: it answers without parallel workers.
            by_tables: tables of rows may be named in place of partitions, where that is faster. That fails
                when a partition has moved.
        """
        # A table of rows that is named itself gives its rows as they are; from a partition each is made anew
        # (use_physical_tlist, createplan.c): a quarter of a count(*). But each has workers of its own then.
        by_tables = by_tables and alone and self.one_row and len(self.joined.sources) == 1
        by_tables = by_tables and not self.table.policies
        key = (numbers, alone, by_tables)
        if key not in self.texts:
            named = numbers if by_tables else ()
            check = guard(self.tables, with_parameters=True, numbers=named, alone=alone).decode()
            answer = self._by_tables(numbers) if by_tables else self._by_partitions(numbers)
            # Within, the condition would be looked at for each row of each partition.
            self.texts[key] = (
                f"with a as materialized ({answer}) select * from a where {check}true"  # noqa: S608
                f" limit {MOST_ROWS + 1}"
            )
        return self.texts[key]

    def _by_partitions(self, numbers: tuple[int, ...]) -> str:
        # Rows of one table in an order are merged from its partitions' indexes where these are plain.
        within, behind = ("", self._where) if len(self.joined.sources) == 1 else (self._where, "")
        rows = self._rows_of(numbers, within)
        return f"select {self.head} from ({rows}) as x{behind}{self.tail}"  # noqa: S608

    def _by_tables(self, numbers: tuple[int, ...]) -> str:
        return " union all ".join(
            f"select {self.head} from ({self._rows_of((n,), '', data=True)}) as x{self._where}"  # noqa: S608
            for n in numbers
        )

    @property
    def _where(self) -> str:
        return f" where {self.condition}" if self.condition else ""

    def _rows_of(self, numbers: tuple[int, ...], where: str, *, data: bool = False) -> str:
        columns = ", ".join(f"{c} as x{i}" for i, c in enumerate(self.columns))
        return " union all ".join(
            f"select {columns} from {self.joined.text(n, data=data)}{where}"  # noqa: S608 - all in quotes
            for n in numbers
        )

    def streamed(self, numbers: tuple[int, ...]) -> str:
        """What a node is asked for the rows of some of the partitions, as they come."""
        check = guard(self.tables, with_parameters=True).decode()
        condition = f"({self.condition})" if self.condition else "true"
        single = len(self.joined.sources) == 1
        rows = self._rows_of(numbers, "" if single or not self.condition else f" where {condition}")
        behind = condition if single else "true"
        asked = f"select {self.head} from ({rows}) as x where {check}{behind}{self.tail}"  # noqa: S608
        names = ", ".join(f"c{i}" for i in range(self.head_columns))
        return f"select {self.merge[0]} from ({asked}) as q({names})"  # noqa: S608

    def merged(self, types: Sequence[str]) -> str:
        """What puts the answers together, for answers of these types."""
        sources = ", ".join(
            f"pg_catalog.unnest(%(c{i})s::pg_catalog.{t}[])" for i, t in enumerate(types)
        )
        names = ", ".join(f"c{i}" for i in range(len(types)))
        head, tail = self.merge
        for i, type_ in enumerate(types):
            head, tail = (s.replace(f"\0{i}\0", type_) for s in (head, tail))
        text = f"select {head} from rows from ({sources}) as q({names}){tail}"  # noqa: S608
        if self.around is None:
            return text
        head, tail, alias = self.around
        return f"select {head} from ({text}) as {alias}{tail}"  # noqa: S608
