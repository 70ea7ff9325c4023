"""The FROM of a question, read: which tables are joined, and whether each partition finds its partners in those
of the same number.

A row of the result has its home where its rows of sharded tables are. Shared tables are everywhere. Where two
sides both have sharded tables, and all columns of the keys of two of them are equal, both sides have the same
home, and so has what is joined; where nothing says so, rows of different partitions may meet. What an outer
join keeps must have a home by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from shardman.client.routing.derived import derived, select_of
from shardman.client.routing.picture import Table, quoted
from shardman.client.routing.sources import Joined, Source
from shardman.client.routing.values import family
from shardman.client.routing.writing import Node, NotSplit

Find = Callable[[str | None, str], Table | None]


#: Writes a condition on what was read so far.
Write = Callable[[Node, Joined], str]


def joined(items: Sequence[Node], where: Node | None, find: Find, write: Write) -> Joined:
    """Reads a FROM.

    Args:
        where: the condition of the statement.
        find: the table that a name means.

    Raises:
        NotSplit: rows of different partitions may meet, or nobody can tell.
    """
    reader = _Reader(find, write)
    groups = []
    for i, item in enumerate(items):
        reader.found.pieces += [", "] if i else []
        groups.append(reader.read(item))
    reader.one_home(_together(groups), list(_conjuncts(where)))
    return reader.found


def _conjuncts(condition: Node | None) -> Iterator[Node]:
    """What a condition says, with AND between."""
    if condition is None:
        return
    body = condition.get("BoolExpr", {})
    if body.get("boolop") == "AND_EXPR":
        for each in body["args"]:
            yield from _conjuncts(each)
    else:
        yield condition


#: Sharded tables that have one home; none: shared ones.
_Home = list[Source]


@dataclass
class _Group:
    """What is joined so that no side is kept.

    Args:
        homes: what is known to have one home.
        conditions: what every row fulfils.
    """

    homes: list[_Home]
    conditions: list[Node] = field(default_factory=list)


def _together(groups: Sequence[_Group]) -> _Group:
    return _Group([h for g in groups for h in g.homes], [c for g in groups for c in g.conditions])


class _Reader:
    def __init__(self, find: Find, write: Write) -> None:
        self.find = find
        self.write = write
        self.found = Joined()

    def read(self, item: Node) -> _Group:
        ((kind, body),) = item.items()
        if kind == "RangeVar":
            return self._table(body)
        if kind == "RangeSubselect":
            return self._select(body)
        if kind != "JoinExpr":
            raise NotSplit(f"{kind} in its FROM")
        if body.get("isNatural") or "alias" in body or "join_using_alias" in body:
            raise NotSplit("NATURAL JOIN, or a join with an alias")
        if body["jointype"] not in ("JOIN_INNER", "JOIN_LEFT"):
            raise NotSplit("RIGHT or FULL JOIN")
        return self._join(body, keeps=body["jointype"] == "JOIN_LEFT")

    def _table(self, body: Node) -> _Group:
        alias = body.get("alias", {})
        called = str(alias.get("aliasname", body["relname"]))
        table = self.find(body.get("schemaname"), body["relname"])
        if (
            table is None
            or "colnames" in alias
            or any(s.alias == called for s in self.found.sources)
        ):
            raise NotSplit("a name in its FROM")
        source = Source(called, table)
        self.found.sources.append(source)
        self.found.pieces += [table, " as " + quoted(called).replace("%", "%%")]
        return _Group([] if table.shared else [[source]])

    def _select(self, body: Node) -> _Group:
        called, select = select_of(body)
        if any(s.alias == called for s in self.found.sources):
            raise NotSplit("a name in its FROM")
        within = joined(select.get("fromClause", ()), None, self.find, self.write)
        where = self.write(select["whereClause"], within) if "whereClause" in select else ""
        made = derived(called, select, within, where)
        source = Source(called, made.table)
        self.found.sources.append(source)
        self.found.pieces += made.pieces
        self.found.looks_up = self.found.looks_up or within.shares
        return _Group([] if made.table.shared else [[source]])

    def _join(self, body: Node, *, keeps: bool) -> _Group:
        found = self.found
        before = len(found.sources)
        found.pieces.append("(")
        left = self.read(body["larg"])
        between = len(found.sources)
        found.pieces.append(" left join " if keeps else " join ")
        right = self.read(body["rarg"])
        conditions = [
            self._using(
                str(c["String"]["sval"]), found.sources[before:between], found.sources[between:]
            )
            for c in body.get("usingClause", ())
        ]
        conditions += _conjuncts(body.get("quals"))
        text = " and ".join(self.write(c, found) for c in conditions)
        found.pieces.append(f" on {text or 'true'})")
        if not keeps:
            return _together([left, right, _Group([], conditions)])
        return self._kept(left, right, conditions)

    def _kept(self, left: _Group, right: _Group, conditions: list[Node]) -> _Group:
        """A LEFT JOIN: rows of the left side find their partners at home, or nowhere."""
        one, other = self.one_home(left, []), self.one_home(right, [])
        if other and not one:
            raise NotSplit("a LEFT JOIN from a shared table to a sharded one")
        both = self.one_home(_Group([h for h in (one, other) if h]), conditions)
        # What only the right side fulfils, a row without a partner does not.
        return _Group([both] if both else [], left.conditions)

    def _using(self, name: str, left: Sequence[Source], right: Sequence[Source]) -> Node:
        merged = self.found.merged
        ones = [s.alias for s in left if name in s.table.columns]
        if name in merged and {*ones} <= {*merged[name]}:
            ones = merged[name][:1]
        others = [s.alias for s in right if name in s.table.columns]
        if len(ones) != 1 or len(others) != 1:
            raise NotSplit(f"USING ({name}), which several tables have")
        merged[name] = [*merged.get(name, ones), *others]
        sides = {"lexpr": reference(ones[0], name), "rexpr": reference(others[0], name)}
        return {"A_Expr": {"kind": "AEXPR_OP", "name": [{"String": {"sval": "="}}], **sides}}

    def one_home(self, group: _Group, more: list[Node]) -> _Home:
        """All of a group.

        Raises:
            NotSplit: nothing says that it is one.
        """
        pairs = [p for c in (*group.conditions, *more) if (p := self._pair(c)) is not None]
        homes = list(group.homes)
        while len(homes) > 1:
            one = next((h for h in homes[1:] if _meet(homes[0], h, pairs)), None)
            if one is None:
                raise NotSplit(
                    "nothing says that the keys of its tables are equal, or they have other partitions"
                )
            homes.remove(one)
            homes[0] = [*homes[0], *one]
        return homes[0] if homes else []

    def _pair(self, condition: Node) -> _Pair | None:
        """Two columns that are equal."""
        body = condition.get("A_Expr", {})
        if body.get("kind") != "AEXPR_OP" or [n["String"]["sval"] for n in body["name"]] != ["="]:
            return None
        sides = [body.get("lexpr", {}), body["rexpr"]]
        columns = [self.found.column(s) for s in sides if "ColumnRef" in s]
        if len(columns) != 2 or columns[0] is None or columns[1] is None:
            return None
        return columns[0], columns[1]


_Pair = tuple[tuple[Source, str], tuple[Source, str]]


def reference(*names: str) -> Node:
    """A column, as the parser has it."""
    return {"ColumnRef": {"fields": [{"String": {"sval": n}} for n in names]}}


def _meet(one: _Home, other: _Home, pairs: Sequence[_Pair]) -> bool:
    equal = {*pairs, *((b, a) for a, b in pairs)}
    return any(_alike(a, b, equal) for a in one for b in other)


def _alike(one: Source, other: Source, equal: set[_Pair]) -> bool:
    """Whether the keys of two tables are equal, and lead to partitions of one number."""
    return (
        len(one.table.parts) == len(other.table.parts)
        and len(one.table.key) == len(other.table.key)
        and all(
            family(a.type) == family(b.type) and ((one, a.name), (other, b.name)) in equal
            for a, b in zip(one.table.key, other.table.key, strict=True)
        )
    )
