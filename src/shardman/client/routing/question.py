"""A question, read: what each node is asked, and how the answers are put together.

Aggregates are computed by each node over its own partitions, and once more over the answers; of rows in an
order each node gives the first ones. Both statements are PostgreSQL's to run, so numbers, texts and nulls are
its own. Only what gives the same so, in whatever order rows are read, is split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shardman.client.routing.columns import known_column, plain_column, sub_select, written
from shardman.client.routing.divisible import (
    COMBINED,
    MERGED_TYPES,
    SAME_WHEN_EQUAL,
    SORTED,
    SPREADS,
)
from shardman.client.routing.guards import guard
from shardman.client.routing.joining import Find, joined, reference
from shardman.client.routing.nested import around, inner, merged, outputs, without_with
from shardman.client.routing.picture import Table, quoted
from shardman.client.routing.placeholders import Name
from shardman.client.routing.sources import Joined
from shardman.client.routing.writing import (
    Node,
    NotSplit,
    column_name,
    function_name,
    how_sorted,
    is_exact,
    same,
    write,
)

_FIELDS = frozenset(
    """
    distinctClause targetList fromClause whereClause groupClause havingClause sortClause limitOffset
    limitCount limitOption op
    """.split()  # noqa: SIM905
)
_CALL_FIELDS = frozenset(
    ("funcname", "args", "agg_star", "agg_filter", "agg_distinct", "funcformat", "location")
)

#: Aggregates whose answer does not depend on the order of rows, whatever the type.
_ANY_ORDER = frozenset(COMBINED) - {"sum"}
_AGGREGATES = frozenset((*COMBINED, "avg", *SPREADS, *SORTED))
#: More digits than half of those before the point of a variance.
_ROOT_DIGITS = 200
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


def question(body: Node, find: Find, parameters: tuple[Name, ...]) -> Question:
    """Reads a SELECT.

    Args:
        find: the sharded or shared table that a name means.

    Raises:
        NotSplit: it cannot be answered in parts, or nobody can tell that the answer would be the same.
    """
    return _plain(merged(without_with(body), find, _aggregates), find, parameters)


def _aggregates(tree: Any) -> bool:
    return any(f in _AGGREGATES for f in _called(tree))


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
    select = merged(select, find, _aggregates)
    found = _plain(select, find, parameters)
    if not found.few or found.around is not None:
        raise NotSplit("a sub-select in its FROM that is not about groups or first rows")

    def type_(node: Node) -> str:
        source, column = known_column(node, found.joined)
        return source.type(column)

    head, tail = around(body, alias, outputs(select, find), type_)
    name = quoted(alias or "s").replace("%", "%%")
    return replace(found, sorts=None, around=(head, tail, name), texts={})


class _Reader:
    def __init__(self, body: Node, found: Joined, find: Find) -> None:
        self.body = body
        self.joined = found
        self.find = find
        #: Nodes send rows, and all aggregates are computed where they are put together.
        self.collects = False
        #: The columns that are read; each is x0, x1, … of x.
        self.used: dict[str, None] = {}
        self.targets = self._targets(body.get("targetList", ()))
        self.asked: list[str] = []
        #: By which of it each node groups.
        self.grouped: list[str] = []
        self.keys: list[Node] = [self._same(self._key(g)) for g in body.get("groupClause", ())]

    def question(self, parameters: tuple[Name, ...]) -> Question:
        body = self.body
        condition = self._condition(body["whereClause"]) if "whereClause" in body else ""
        grouped = bool(self.keys) or "havingClause" in body
        grouped = grouped or any(_has_aggregate(node) for _, node in self.targets)
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

    # -- what is read ---------------------------------------------------------------------------

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

    def inside(self, node: Node) -> str:
        """An expression about the rows of the tables."""
        return write(node, self._column)

    def _column(self, node: Node) -> str | None:
        if "SubLink" in node:
            return sub_select(node["SubLink"], self._column, self.joined, self.find)
        plain = plain_column(node, self.joined)
        if plain is None:
            return None
        self.used.setdefault(plain)
        return f"x.x{[*self.used].index(plain)}"

    def _same(self, node: Any) -> Any:
        """A tree to be compared: a column by whatever name it has."""
        if isinstance(node, dict) and "ColumnRef" in node:
            column = self.joined.column(node)
            return same(node if column is None else reference(column[0].alias, column[1]))
        if isinstance(node, dict) and "SubLink" in node:
            # Names in it are those of its own tables.
            body = node["SubLink"]
            tested = {"testexpr": self._same(body["testexpr"])} if "testexpr" in body else {}
            return {"SubLink": {**same(body), **tested}}
        if isinstance(node, dict):
            return {k: self._same(v) for k, v in node.items() if k != "location"}
        return [self._same(n) for n in node] if isinstance(node, list) else node

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

    def _ask(self, expression: str) -> str:
        """The column of the answers that has it."""
        if expression not in self.asked:
            self.asked.append(expression)
        return f"c{self.asked.index(expression)}"

    # -- groups ---------------------------------------------------------------------------------

    def _groups_or_rows(self) -> tuple[str, tuple[str, str]]:
        try:
            return self._groups()
        except NotSplit:
            if not any(f in SORTED for f in _called([*(n for _, n in self.targets), self.body])):
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
        if "FuncCall" in node and _has_aggregate(node, deep=False):
            return self._aggregate(node["FuncCall"])
        return None

    def _type(self, node: Node) -> str:
        source, name = known_column(node, self.joined)
        return source.type(name)

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


def _type(column: str) -> str:
    return f"pg_catalog.\0{column[1:]}\0"


def _has_aggregate(node: Node, *, deep: bool = True) -> bool:
    found = _called(node) if deep else iter((function_name(node["FuncCall"]),))
    return any(f in _AGGREGATES for f in found)


def _called(node: Any) -> Iterator[str]:
    """The functions in an expression, or a statement, but for those of sub-selects."""
    if isinstance(node, list):
        for each in node:
            yield from _called(each)
    elif isinstance(node, dict):
        if "FuncCall" in node:
            yield function_name(node["FuncCall"])
        for name, value in node.items():
            yield from _called(value.get("testexpr") if name == "SubLink" else value)
