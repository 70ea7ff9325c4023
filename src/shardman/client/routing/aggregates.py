"""Aggregates, computed by each node over its own partitions and once more over the answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shardman.client.routing.columns import sub_select
from shardman.client.routing.divisible import COMBINED, SAME_WHEN_EQUAL, SORTED, SPREADS
from shardman.client.routing.joining import Find
from shardman.client.routing.reading import Columns
from shardman.client.routing.sources import Joined
from shardman.client.routing.writing import (
    Node,
    NotSplit,
    function_name,
    how_sorted,
    is_exact,
    write,
)

_CALL_FIELDS = frozenset(
    ("funcname", "args", "agg_star", "agg_filter", "agg_distinct", "funcformat", "location")
)

#: Aggregates whose answer does not depend on the order of rows, whatever the type.
_ANY_ORDER = frozenset(COMBINED) - {"sum"}
_AGGREGATES = frozenset((*COMBINED, "avg", *SPREADS, *SORTED))
#: More digits than half of those before the point of a variance.
_ROOT_DIGITS = 200


class Groups(Columns):
    """Expressions about groups of rows."""

    def __init__(self, body: Node, found: Joined, find: Find) -> None:
        super().__init__(body, found, find)
        #: Nodes send rows, and all aggregates are computed where they are put together.
        self.collects = False
        #: What the statement groups by.
        self.keys: list[Node] = []
        #: By which columns of its answer each node groups.
        self.grouped: list[str] = []

    def outside(self, node: Node) -> str:
        """An expression about groups."""
        return write(node, self._of_group)

    def _of_group(self, node: Node) -> str | None:
        if self._same(node) in self.keys:
            return self._ask(self.inside(node))
        if "SubLink" in node:
            return sub_select(node["SubLink"], self._of_group, self.joined, self.find)
        if "ColumnRef" in node:
            raise NotSplit("a column that is not grouped by")
        if "FuncCall" in node and has_aggregate(node, deep=False):
            return self._aggregate(node["FuncCall"])
        return None

    def _collected(self, body: Node) -> str:
        """An aggregate over all rows, as one server computes it, with an order that leaves no choice, or in
        any order."""
        name = function_name(body)
        arguments = body.get("args", [])
        if body.keys() - _CALL_FIELDS - {"agg_order"}:
            raise NotSplit(f"{name} with WITHIN GROUP, or the like")
        if name in SORTED:
            if not self._leaves_no_choice(body):
                raise NotSplit(f"{name} of rows whose order is not certain")
        elif name not in _ANY_ORDER and not is_exact(arguments[0], self._type):
            raise NotSplit(f"{name} of what may depend on the order of rows, or on its type")
        distinct = "distinct " if "agg_distinct" in body else ""
        inside = ", ".join(write(a, self._sent) for a in arguments) or "*"
        order = [
            write(s["SortBy"]["node"], self._sent) + how_sorted(s["SortBy"])
            for s in body.get("agg_order", ())
        ]
        by = f" order by {', '.join(order)}" if order else ""
        only = ""
        if "agg_filter" in body:
            only = f" filter (where {write(body['agg_filter'], self._sent)})"
        return f"pg_catalog.{name}({distinct}{inside}{by}){only}"

    def _sent(self, node: Node) -> str | None:
        """A column as the nodes send it."""
        if "ColumnRef" in node or "SubLink" in node:
            return self._ask(self.inside(node))
        return None

    def _leaves_no_choice(self, body: Node) -> bool:
        """Whether rows that are equal in the order are equal in all that matters."""
        by = [s["SortBy"]["node"] for s in body.get("agg_order", ())]
        value = body["args"][0]
        if self._same(value) in [self._same(n) for n in by]:
            return "ColumnRef" in value and self._type(value) in SAME_WHEN_EQUAL
        columns = [self.joined.column(n) for n in by if "ColumnRef" in n]
        names = {c[1] for c in columns if c is not None}
        (source, *others) = self.joined.sources
        return not others and bool(source.table.primary) and names >= {*source.table.primary}

    def _aggregate(self, body: Node) -> str:
        if self.collects:
            return self._collected(body)
        name = function_name(body)
        if body.keys() - _CALL_FIELDS:
            raise NotSplit(f"{name} with ORDER BY, or the like")
        arguments = body.get("args", [])
        if len(arguments) != (0 if body.get("agg_star") else 1):
            raise NotSplit(f"{name} with other arguments")
        if name not in _ANY_ORDER and not is_exact(arguments[0], self._type):
            raise NotSplit(f"{name} of what may depend on the order of rows, or on its type")
        if "agg_distinct" in body:
            return self._distinct(name, body)
        inside = ", ".join(map(self.inside, arguments)) or "*"
        only = f" filter (where {self.inside(body['agg_filter'])})" if "agg_filter" in body else ""
        if name in SPREADS:
            return self._spread(name, inside, only)
        if name != "avg":
            column = self._ask(f"pg_catalog.{name}({inside}){only}")
            combined = f"pg_catalog.{COMBINED[name]}({column})::{_type(column)}"
            # Grouped by more than the statement says, a node without rows answers nothing.
            return f"coalesce({combined}, 0)" if name == "count" else f"({combined})"
        total = self._ask(f"pg_catalog.sum({inside}){only}")
        count = self._ask(f"pg_catalog.count({inside}){only}")
        # As avg does it: a numeric through a numeric.
        sums = f"pg_catalog.sum({total})::pg_catalog.numeric"
        return f"({sums} / nullif(pg_catalog.sum({count}), 0))"

    def _spread(self, name: str, inside: str, only: str) -> str:
        """Of exact numbers, as numeric_stddev_internal (numeric.c) has it: by N, the sum and that of squares,
        with the scale of PostgreSQL's own division.

        The root is taken to so many digits that rounding it once more is rounding it once: its square has so
        few digits that it is never nearer to the middle of two results.
        """
        value = f"({inside})::pg_catalog.numeric"
        parts = [
            self._ask(f"pg_catalog.{function}{only}")
            for function in (f"count({inside})", f"sum({value})", f"sum({value} * {value})")
        ]
        n, sums, squares = (f"pg_catalog.sum({c})::pg_catalog.numeric" for c in parts)
        less = "" if name.endswith("_pop") else " - 1"
        above = f"({n} * {squares} - {sums} * {sums})"
        variance = f"{above} / nullif({n} * ({n}{less}), 0)"
        if name.startswith("stddev"):
            scale = f"pg_catalog.scale({variance})"
            longer = f"pg_catalog.round({variance}, 2 * {scale} + {_ROOT_DIGITS})"
            # NaN has no scale.
            root = f"pg_catalog.round(pg_catalog.sqrt({longer}), {scale})"
            variance = f"coalesce({root}, 'NaN'::pg_catalog.numeric)"
        few = f"{n} > {0 if name.endswith('_pop') else 1}"
        return f"(case when {few} then case when {above} <= 0 then 0 else {variance} end end)"

    def _distinct(self, name: str, body: Node) -> str:
        """Each node groups by the values, too: they are counted once all are there."""
        if name != "count":
            raise NotSplit(f"{name} with DISTINCT")
        value = self.inside(body["args"][0])
        if "agg_filter" in body:
            value = f"(case when {self.inside(body['agg_filter'])} then {value} end)"
        column = self._ask(value)
        if value not in self.grouped:
            self.grouped.append(value)
        return f"pg_catalog.count(distinct {column})"


def _type(column: str) -> str:
    return f"pg_catalog.\0{column[1:]}\0"


def has_aggregate(node: Node, *, deep: bool = True) -> bool:
    found = called(node) if deep else iter((function_name(node["FuncCall"]),))
    return any(f in _AGGREGATES for f in found)


def called(node: Any) -> Iterator[str]:
    """The functions in an expression, or a statement, but for those of sub-selects."""
    if isinstance(node, list):
        for each in node:
            yield from called(each)
    elif isinstance(node, dict):
        if "FuncCall" in node:
            yield function_name(node["FuncCall"])
        for name, value in node.items():
            yield from called(value.get("testexpr") if name == "SubLink" else value)


def aggregates(tree: Any) -> bool:
    """Whether an aggregate is called in a statement, but for its sub-selects."""
    return any(f in _AGGREGATES for f in called(tree))
