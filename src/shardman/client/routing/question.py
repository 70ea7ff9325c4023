"""A question, read: what each node is asked, and how the answers are put together.

Aggregates are computed by each node over its own partitions, and once more over the answers; of rows in an
order each node gives the first ones. Both statements are PostgreSQL's to run, so numbers, texts and nulls are
its own. Only what gives the same so, in whatever order rows are read, is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shardman.client.routing.aggregates import Groups, aggregates, called, has_aggregate
from shardman.client.routing.asked import Question, Sort
from shardman.client.routing.columns import known_column, written
from shardman.client.routing.divisible import (
    MERGED_TYPES,
    SORTED,
)
from shardman.client.routing.joining import Find, joined, reference
from shardman.client.routing.nested import around, inner, merged, outputs, without_with
from shardman.client.routing.picture import quoted
from shardman.client.routing.placeholders import Name
from shardman.client.routing.sources import Joined
from shardman.client.routing.writing import (
    Node,
    NotSplit,
    column_name,
    how_sorted,
    write,
)

_FIELDS = frozenset(
    """
    distinctClause targetList fromClause whereClause groupClause havingClause sortClause limitOffset
    limitCount limitOption op
    """.split()  # noqa: SIM905
)


def question(body: Node, find: Find, parameters: tuple[Name, ...]) -> Question:
    """Reads a SELECT.

    Args:
        find: the sharded or shared table that a name means.

    Raises:
        NotSplit: it cannot be answered in parts, or nobody can tell that the answer would be the same.
    """
    return _plain(merged(without_with(body), find, aggregates), find, parameters)


def _plain(body: Node, find: Find, parameters: tuple[Name, ...]) -> Question:
    within = inner(body)
    if within is not None:
        return _within_another(body, *within, find, parameters)
    unknown = body.keys() - _FIELDS
    if unknown or body.get("op", "SETOP_NONE") != "SETOP_NONE":
        raise NotSplit(f"{', '.join(sorted(unknown)) or 'UNION or the like'} in it")
    if body.get("limitOption") == "LIMIT_OPTION_WITH_TIES":
        raise NotSplit("WITH TIES in it")
    found = joined(body["fromClause"], body.get("whereClause"), find, written(find))
    if not found.sharded:
        raise NotSplit("no sharded table in it")
    return _Reader(body, found, find).question(parameters)


def _within_another(
    body: Node, alias: str, select: Node, find: Find, parameters: tuple[Name, ...]
) -> Question:
    """A select around groups or first rows: these are put together, and the rest is done with them."""
    select = merged(select, find, aggregates)
    found = _plain(select, find, parameters)
    if not found.few or found.around is not None:
        raise NotSplit("a sub-select in its FROM that is not about groups or first rows")

    def type_(node: Node) -> str:
        source, column = known_column(node, found.joined)
        return source.type(column)

    head, tail = around(body, alias, outputs(select, find), type_)
    name = quoted(alias or "s").replace("%", "%%")
    return replace(found, sorts=None, around=(head, tail, name), texts={})


class _Reader(Groups):
    def __init__(self, body: Node, found: Joined, find: Find) -> None:
        super().__init__(body, found, find)
        self.targets = self._targets(body.get("targetList", ()))
        self.keys = [self._same(self._key(g)) for g in body.get("groupClause", ())]

    def question(self, parameters: tuple[Name, ...]) -> Question:
        body = self.body
        condition = self._condition(body["whereClause"]) if "whereClause" in body else ""
        grouped = bool(self.keys) or "havingClause" in body
        grouped = grouped or any(has_aggregate(node) for _, node in self.targets)
        if grouped:
            tail, merge = self._groups_or_rows()
        else:
            tail, merge = self._rows()
        return Question(
            self.joined.sharded,
            parameters,
            tuple(self.used),
            self.joined,
            ", ".join(f"{e} as a{i}" for i, e in enumerate(self.asked)),
            condition,
            tail,
            merge,
            len(self.asked),
            grouped or bool(body.keys() & {"limitCount", "limitOffset"}) or self._is_distinct(),
            None if grouped else self._sorts(),
            grouped and not self.keys and not self.grouped and not self.collects,
        )

    def _condition(self, node: Node) -> str:
        if len(self.joined.sources) == 1:
            return self.inside(node)
        return written(self.find)(node, self.joined)

    # -- what is asked for -------------------------------------------------------------------------

    def _targets(self, items: Sequence[Node]) -> list[tuple[str, Node]]:
        found: list[tuple[str, Node]] = []
        for each in items:
            target = each["ResTarget"]
            value = target["val"]
            fields = value.get("ColumnRef", {}).get("fields", [])
            if fields and "A_Star" in fields[-1]:
                found += self._star(fields[:-1])
            else:
                found.append((target.get("name") or column_name(value), value))
        if not found:
            raise NotSplit("no column is asked for")
        return found

    def _star(self, of: Sequence[Node]) -> list[tuple[str, Node]]:
        """All columns, or those of one table."""
        names = [n["String"]["sval"] for n in of]
        if self.joined.merged and not names:
            raise NotSplit("* behind a join with USING")
        sources = [s for s in self.joined.sources if names in ([], [s.alias])]
        return [(c, reference(s.alias, c)) for s in sources for c in s.table.columns]

    def _numbered(self, node: Node) -> Node | None:
        """The column of the answer that a number means."""
        if "A_Const" not in node:
            return None
        place = node["A_Const"].get("ival", {}).get("ival", 0)
        if not 0 < place <= len(self.targets):
            raise NotSplit("a constant to group or to sort by")
        _, node = self.targets[place - 1]
        return node

    def _named(self, node: Node) -> Node | None:
        """The column of the answer that a name means."""
        fields = node.get("ColumnRef", {}).get("fields", ())
        if len(fields) != 1:
            return None
        found = [t for name, t in self.targets if name == fields[0]["String"]["sval"]]
        if any(self._same(f) != self._same(found[0]) for f in found):
            raise NotSplit("two columns of one name")
        return found[0] if found else None

    def _key(self, node: Node) -> Node:
        """What is grouped by: a column of the table comes before one of the answer."""
        numbered = self._numbered(node)
        if numbered is not None:
            return numbered
        if "ColumnRef" in node and self.joined.column(node) is not None:
            return node
        return self._named(node) or node

    def _sorted(self) -> list[tuple[Node, str]]:
        """What is sorted by, and how: a column of the answer comes before one of the table."""
        found = []
        for each in self.body.get("sortClause", ()):
            sort = each["SortBy"]
            node = sort["node"]
            found.append((self._numbered(node) or self._named(node) or node, how_sorted(sort)))
        return found

    # -- groups ---------------------------------------------------------------------------------

    def _groups_or_rows(self) -> tuple[str, tuple[str, str]]:
        try:
            return self._groups()
        except NotSplit:
            if not any(f in SORTED for f in called([*(n for _, n in self.targets), self.body])):
                raise
        self.collects = True
        self.asked, self.grouped = [], []
        return self._groups()

    def _groups(self) -> tuple[str, tuple[str, str]]:
        columns = [self._ask(self.inside(k)) for k in self.keys]
        self.grouped = list(self.asked)
        head = self._head(self.outside)
        tail = f" group by {', '.join(columns)}" if columns else ""
        if "havingClause" in self.body:
            tail += f" having {self.outside(self.body['havingClause'])}"
        tail += self._order([(self.outside(n), how) for n, how in self._sorted()])
        tail += self._limit()
        if self.collects:
            return "", (head, tail)
        asked = ", ".join(str(self.asked.index(e) + 1) for e in self.grouped)
        return (f" group by {asked}" if asked else ""), (head, tail)

    def _head(self, expression: Any) -> str:
        distinct = "distinct " if self._is_distinct() else ""
        return distinct + ", ".join(
            f"{expression(node)} as {quoted(name).replace('%', '%%')}"
            for name, node in self.targets
        )

    # -- rows -----------------------------------------------------------------------------------

    def _rows(self) -> tuple[str, tuple[str, str]]:
        head = self._head(lambda node: self._ask(self.inside(node)))
        targets = len(self.asked)
        order = [(self._ask(self.inside(n)), how) for n, how in self._sorted()]
        if self._is_distinct():
            if len(self.asked) > targets:
                raise NotSplit("it is sorted by what is not asked for")
            self.asked[0] = f"distinct {self.asked[0]}"
        inner = self._order([(str(int(c[1:]) + 1), how) for c, how in order])
        if "limitCount" in self.body:
            inner += f" limit {self._first_rows()}"
        return inner, (head, self._order(order) + self._limit())

    def _sorts(self) -> tuple[Sort, ...] | None:
        """Where rows are sorted by columns that are shown, of types that compare alike everywhere."""
        found = []
        shown = [self._same(node) for _, node in self.targets]
        for node, how in self._sorted():
            same_ = self._same(node)
            if "ColumnRef" not in node or same_ not in shown:
                return None
            oid = MERGED_TYPES.get(self._type(node))
            if oid is None:
                return None
            down = "desc" in how
            nulls_first = "nulls first" in how or (down and "nulls last" not in how)
            found.append(Sort(shown.index(same_), oid, down, nulls_first))
        return tuple(found)

    def _is_distinct(self) -> bool:
        clause = self.body.get("distinctClause")
        if clause and clause != [{}]:
            raise NotSplit("DISTINCT ON")
        return clause is not None

    def _order(self, items: Sequence[tuple[str, str]]) -> str:
        text = ", ".join(column + how for column, how in items)
        return f" order by {text}" if text else ""

    def _count(self, name: str) -> str:
        node = self.body[name]
        if "ParamRef" not in node and "ival" not in node.get("A_Const", {}):
            raise NotSplit("its LIMIT is computed")
        return write(node, lambda _node: None)

    def _limit(self) -> str:
        text = ""
        for name, word in (("limitCount", "limit"), ("limitOffset", "offset")):
            if name in self.body:
                text += f" {word} {self._count(name)}"
        return text

    def _first_rows(self) -> str:
        """How many rows of a node may be among those that are wanted."""
        if "limitOffset" not in self.body:
            return self._count("limitCount")
        both = (self._count("limitCount"), self._count("limitOffset"))
        # OFFSET null is none.
        return f"({both[0]}::pg_catalog.int8 + coalesce({both[1]}::pg_catalog.int8, 0))"
