"""Selects in FROM beside other tables: each node, or each partition, has all that they are about.

Of shared tables every node has the rows. Of one sharded table each partition gives its own; where rows are made
one by DISTINCT or GROUP BY, those of one key must stay apart, for then no two partitions have the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardman.client.routing.divisible import COLUMN_TYPES, LOOKED_UP
from shardman.client.routing.picture import Column, Table, quoted
from shardman.client.routing.sources import Joined
from shardman.client.routing.writing import (
    Node,
    NotSplit,
    column_name,
    function_name,
    is_exact,
    write,
)

_FIELDS = frozenset(
    ("distinctClause", "targetList", "fromClause", "whereClause", "groupClause", "havingClause")
) | {"limitOption", "op"}
_CALL = frozenset(
    ("funcname", "args", "agg_star", "agg_filter", "agg_distinct", "funcformat", "location")
)
#: What a sum is of, and what it is itself.
_SUMS = {"smallint": "bigint", "integer": "bigint", "bigint": "numeric", "numeric": "numeric"}


@dataclass(frozen=True)
class Derived:
    """A select in FROM as a table.

    Args:
        table: its columns; a sharded one where the select is of a sharded table.
        pieces: its text, as that of `Joined`.
    """

    table: Table
    pieces: tuple[str | Table, ...]


def select_of(body: Node) -> tuple[str, Node]:
    """What a select in FROM is called, and what it says.

    Raises:
        NotSplit: it says more than is known here.
    """
    ((kind, select),) = body["subquery"].items()
    alias = body.get("alias", {})
    called = str(alias.get("aliasname", ""))
    if (
        kind != "SelectStmt"
        or select.keys() - _FIELDS
        or select.get("op", "SETOP_NONE") != "SETOP_NONE"
        or select.get("distinctClause", [{}]) != [{}]
        or body.get("lateral")
        or "colnames" in alias
        or not called
    ):
        raise NotSplit("a sub-select in its FROM that is not plain")
    return called, select


def derived(called: str, select: Node, found: Joined, where: str) -> Derived:
    """Reads one whose FROM was read already.

    Args:
        where: its condition, written anew; empty where there is none.

    Raises:
        NotSplit: rows of several partitions would be made one, or nobody can tell.
    """
    return _Reader(select, found).read(called, where)


class _Reader:
    def __init__(self, select: Node, found: Joined) -> None:
        self.select = select
        self.found = found
        self.groups = [self._known(g) for g in select.get("groupClause", ())]

    def read(self, called: str, where: str) -> Derived:
        select, found = self.select, self.found
        if not found.sources or (found.sharded and len(found.sources) > 1):
            raise NotSplit("a sub-select in its FROM of several tables, one of them sharded")
        targets = [t["ResTarget"] for t in select["targetList"]]
        names = [str(t.get("name") or column_name(t["val"])) for t in targets]
        if len({*names}) < len(names):
            raise NotSplit("two columns of one name")
        shown = ", ".join(
            f"{self._text(t['val'])} as {_quoted(n)}" for t, n in zip(targets, names, strict=True)
        )
        distinct = "distinct " if "distinctClause" in select else ""
        tail = f" where {where}" if where else ""
        if self.groups:
            tail += " group by " + ", ".join(_quoted(*g) for g in self.groups)
        if "havingClause" in select:
            tail += f" having {self._text(select['havingClause'])}"
        table = Table(
            "",
            called,
            tuple(names),
            shared=True,
            types=tuple(self._type(t["val"]) for t in targets),
        )
        if found.sharded:
            table = self._sharded(table, [t["val"] for t in targets])
        pieces = (
            f"(select {distinct}{shown} from ",  # noqa: S608 - all in quotes
            *found.pieces,
            f"{tail}) as {_quoted(called)}",
        )
        return Derived(table, pieces)

    def _sharded(self, table: Table, values: list[Node]) -> Table:
        (source,) = self.found.sources
        columns = [self._known(v)[1] if "ColumnRef" in v else "" for v in values]
        key = [c.name for c in source.table.key]
        apart = {g[1] for g in self.groups} if self.groups else {*columns}
        if (self.groups or "distinctClause" in self.select) and not apart >= {*key}:
            raise NotSplit("a sub-select in its FROM that makes rows of several keys one")
        named = tuple(
            # No name is empty: it is equal to nothing.
            Column(
                table.columns[columns.index(c.name)] if c.name in columns else "", c.type, c.length
            )
            for c in source.table.key
        )
        return Table(
            source.table.schema,
            source.table.name,
            table.columns,
            named,
            source.table.parts,
            types=table.types,
            policies=source.table.policies,
        )

    def _known(self, node: Node) -> tuple[str, str]:
        """A column, by its table's name and its own."""
        column = self.found.column(node) if "ColumnRef" in node else None
        if column is None:
            raise NotSplit("a column that is not known, in a sub-select in its FROM")
        source, name = column
        if source.type(name) not in COLUMN_TYPES:
            raise NotSplit(f"the type or the collation of {name}")
        return source.alias, name

    def _text(self, node: Node) -> str:
        return write(node, self._leaf)

    def _leaf(self, node: Node) -> str | None:
        if "SubLink" in node:
            raise NotSplit("a sub-select in a sub-select in its FROM")
        if "ColumnRef" in node:
            known = self._known(node)
            if self.groups and known not in self.groups:
                raise NotSplit("a column that is not grouped by")
            return _quoted(*known)
        if "FuncCall" in node and function_name(node["FuncCall"]) in (*LOOKED_UP, "sum", "avg"):
            return self._aggregate(node["FuncCall"])
        return None

    def _aggregate(self, body: Node) -> str:
        name = function_name(body)
        arguments = body.get("args", [])
        if not self.groups or body.keys() - _CALL:
            raise NotSplit(f"{name} in a sub-select in its FROM")
        if len(arguments) != (0 if body.get("agg_star") else 1):
            raise NotSplit(f"{name} with other arguments")
        if name in ("sum", "avg") and not is_exact(arguments[0], self._type):
            raise NotSplit(f"{name} of what may depend on the order of rows, or on its type")
        inside = ", ".join(write(a, self._of_row) for a in arguments) or "*"
        distinct = "distinct " if "agg_distinct" in body else ""
        only = ""
        if "agg_filter" in body:
            only = f" filter (where {write(body['agg_filter'], self._of_row)})"
        return f"pg_catalog.{name}({distinct}{inside}){only}"

    def _of_row(self, node: Node) -> str | None:
        if "SubLink" in node:
            raise NotSplit("a sub-select in a sub-select in its FROM")
        return _quoted(*self._known(node)) if "ColumnRef" in node else None

    def _type(self, node: Node) -> str:
        """Of what is shown; empty where that is not known here, so that nothing may be done with it."""
        if "ColumnRef" in node:
            alias, name = self._known(node)
            return next(s for s in self.found.sources if s.alias == alias).type(name)
        if "FuncCall" not in node:
            return ""
        name, arguments = function_name(node["FuncCall"]), node["FuncCall"].get("args", [])
        if name == "count":
            return "bigint"
        if name == "avg":
            return "numeric"
        inner = self._type(arguments[0]) if len(arguments) == 1 else ""
        return _SUMS.get(inner, "") if name == "sum" else inner if name in ("min", "max") else ""


def _quoted(*names: str) -> str:
    return quoted(*names).replace("%", "%%")
