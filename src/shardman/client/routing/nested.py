"""Selects within a select's FROM, by parentheses or by WITH: one that adds nothing is merged into what stands
around it, as PostgreSQL's own planner does; around one that makes groups, or takes the first rows, the rest is
written as it was, for a server that has its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shardman.client.routing.divisible import COMBINED
from shardman.client.routing.joining import Find, reference
from shardman.client.routing.picture import quoted
from shardman.client.routing.writing import (
    Node,
    NotSplit,
    column_name,
    function_name,
    how_sorted,
    is_exact,
    write,
)

_PLAIN = frozenset(("targetList", "fromClause", "whereClause", "limitOption", "op"))
_AROUND = _PLAIN | {
    "distinctClause",
    "groupClause",
    "havingClause",
    "sortClause",
    "limitOffset",
    "limitCount",
}
_CTE = frozenset(("ctename", "ctematerialized", "ctequery", "location"))
_CALL = frozenset(
    ("funcname", "args", "agg_star", "agg_filter", "agg_distinct", "funcformat", "location")
)
_AGGREGATES = frozenset((*COMBINED, "avg"))


def nodes_of(tree: Any, kind: str) -> list[Node]:
    """All nodes of a kind."""
    if isinstance(tree, list):
        return [found for each in tree for found in nodes_of(each, kind)]
    if not isinstance(tree, dict):
        return []
    own = [tree[kind]] if isinstance(tree.get(kind), dict) else []
    return own + [found for each in tree.values() for found in nodes_of(each, kind)]


def without_with(body: Node) -> Node:
    """The select with what WITH names written where it is named.

    Raises:
        NotSplit: it does more than give a name to a select.
    """
    rest = {k: v for k, v in body.items() if k != "withClause"}
    clause = body.get("withClause", {"ctes": []})
    if clause.get("recursive") or nodes_of(rest, "withClause"):
        raise NotSplit("WITH RECURSIVE, or a WITH within")
    known: dict[str, Node] = {}
    used: set[str] = set()
    for each in clause["ctes"]:
        cte = each["CommonTableExpr"]
        ((kind, query),) = cte["ctequery"].items()
        if cte.keys() - _CTE or kind != "SelectStmt" or nodes_of(query, "withClause"):
            raise NotSplit("a WITH that is not plain")
        known[cte["ctename"]] = _named(query, known, used)
    rest = dict(_named(rest, known, used))
    if used != known.keys():
        # What is wrong in it would not be seen.
        raise NotSplit("a WITH that is not used")
    return rest


def _named(tree: Any, known: Mapping[str, Node], used: set[str]) -> Any:
    if isinstance(tree, list):
        return [_named(each, known, used) for each in tree]
    if not isinstance(tree, dict):
        return tree
    table = tree.get("RangeVar")
    if table is not None and "schemaname" not in table and table["relname"] in known:
        used.add(table["relname"])
        alias = table.get("alias", {"aliasname": table["relname"]})
        subquery = {"SelectStmt": known[table["relname"]]}
        return {"RangeSubselect": {"subquery": subquery, "alias": alias}}
    return {name: _named(each, known, used) for name, each in tree.items()}


def inner(body: Node) -> tuple[str, Node] | None:
    """What the select in a FROM is called, and what it is, where nothing else is there."""
    items = body.get("fromClause", ())
    if len(items) != 1 or "RangeSubselect" not in items[0]:
        return None
    found = items[0]["RangeSubselect"]
    ((kind, select),) = found["subquery"].items()
    alias = found.get("alias", {"aliasname": ""})
    if kind != "SelectStmt" or found.get("lateral") or "colnames" in alias:
        raise NotSplit("a sub-select in its FROM that is not plain")
    return str(alias["aliasname"]), select


def merged(body: Node, find: Find, aggregates: Callable[[Any], bool]) -> Node:
    """The same select over the tables of the one in its FROM, as long as that is plain.

    Args:
        find: the table that a name means.
        aggregates: whether there is an aggregate in something.

    Raises:
        NotSplit: nobody can tell what a name means.
    """
    while (found := inner(body)) is not None:
        alias, select = found
        # Rows that are counted or added have no order.
        grouped = "groupClause" in body or aggregates(body.get("targetList", []))
        plain = _PLAIN | {"sortClause"} if grouped else _PLAIN
        if (
            select.keys() - plain
            or select.get("op", "SETOP_NONE") != "SETOP_NONE"
            or aggregates(select.get("targetList", []))
        ):
            break
        body = _Merge(alias, outputs(select, find)).select(body, select)
    return body


def outputs(select: Node, find: Find) -> list[tuple[str, Node]]:
    """The columns that a select gives, by name."""
    found: list[tuple[str, Node]] = []
    for each in select.get("targetList", ()):
        target = each["ResTarget"]
        fields = target["val"].get("ColumnRef", {}).get("fields", ())
        if fields and "A_Star" in fields[-1]:
            found += _star(select, len(fields), find)
        else:
            found.append((str(target.get("name") or column_name(target["val"])), target["val"]))
    return found


def _star(select: Node, fields: int, find: Find) -> list[tuple[str, Node]]:
    items = select.get("fromClause", ())
    if fields == 1 and len(items) == 1 and "RangeVar" in items[0]:
        body = items[0]["RangeVar"]
        alias = body.get("alias", {"aliasname": body["relname"]})
        table = find(body.get("schemaname"), body["relname"])
        if table is not None and "colnames" not in alias:
            return [(c, reference(str(alias["aliasname"]), c)) for c in table.columns]
    raise NotSplit("* in a sub-select")


class _Merge:
    """Puts what a sub-select's columns are in place of their names."""

    def __init__(self, alias: str, columns: Sequence[tuple[str, Node]]) -> None:
        self.alias = alias
        self.columns = columns

    def select(self, body: Node, within: Node) -> Node:
        shown = [self._target(t) for t in self._targets(body.get("targetList", ()))]
        named = {t["ResTarget"]["name"]: t["ResTarget"]["val"] for t in shown}
        if len(named) < len(shown) and body.keys() & {"sortClause", "groupClause"}:
            raise NotSplit("two columns of one name")
        new = {k: v for k, v in self._within(body).items() if k != "whereClause"}
        new["targetList"] = shown
        new["fromClause"] = within.get("fromClause", [])
        conditions = [within["whereClause"]] if "whereClause" in within else []
        conditions += [self._within(body["whereClause"])] if "whereClause" in body else []
        if conditions:
            new["whereClause"] = (
                {"BoolExpr": {"boolop": "AND_EXPR", "args": conditions}}
                if len(conditions) > 1
                else conditions[0]
            )
        if "groupClause" in body:
            # A column that is read comes before one that is shown; where rows are sorted, behind it.
            names = {**named, **{n: None for n, _ in self.columns}}
            new["groupClause"] = [self._item(g, names) for g in body["groupClause"]]
        if "sortClause" in body:
            new["sortClause"] = [
                {"SortBy": {**s["SortBy"], "node": self._item(s["SortBy"]["node"], named)}}
                for s in body["sortClause"]
            ]
        return new

    def _targets(self, items: Sequence[Node]) -> list[Node]:
        found = []
        for each in items:
            fields = each["ResTarget"]["val"].get("ColumnRef", {}).get("fields", ())
            if fields and "A_Star" in fields[-1]:
                if len(fields) > 1 and fields[0]["String"]["sval"] != self.alias:
                    raise NotSplit("a name in its FROM")
                names = [n for n, _ in self.columns]
                found += [{"ResTarget": {"name": n, "val": reference(n)}} for n in names]
            else:
                found.append(each)
        return found

    def _target(self, item: Node) -> Node:
        target = item["ResTarget"]
        name = str(target.get("name") or column_name(target["val"]))
        return {"ResTarget": {**target, "name": name, "val": self._within(target["val"])}}

    def _item(self, node: Node, named: Mapping[str, Node | None]) -> Node:
        """What is grouped or sorted by."""
        fields = node.get("ColumnRef", {}).get("fields", ())
        if len(fields) == 1 and "String" in fields[0]:
            shown = named.get(fields[0]["String"]["sval"])
            if shown is not None:
                return shown
        found: Node = self._within(node)
        return found

    def _within(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self._within(each) for each in tree]
        if not isinstance(tree, dict):
            return tree
        if "ColumnRef" in tree:
            return self._column(tree["ColumnRef"]["fields"])
        # Names in a sub-select are those of its own tables.
        return {
            name: each if name in ("subselect", "fromClause", "targetList", "sortClause", "groupClause")
            else self._within(each)
            for name, each in tree.items()
        }  # fmt: skip

    def _column(self, fields: Sequence[Node]) -> Node:
        names = [str(f.get("String", {}).get("sval", "")) for f in fields]
        *alias, name = names
        found = [node for n, node in self.columns if n == name]
        if len(found) != 1 or alias not in ([], [self.alias]):
            raise NotSplit("a column that is not known")
        # What they are without a type, or as a place among columns, they are not any more elsewhere.
        if "A_Const" in found[0] or "ParamRef" in found[0]:
            raise NotSplit("a column that is a constant")
        return found[0]


def around(
    body: Node, alias: str, columns: Sequence[tuple[str, Node]], type_: Callable[[Node], str]
) -> tuple[str, str]:
    """A select as it was written, up to its FROM and behind it.

    Args:
        alias: what the rows in its FROM are called.
        columns: those that they have.
        type_: of a column of a table.

    Raises:
        NotSplit: it says more than can be written anew, or depends on the order of rows.
    """
    if body.keys() - _AROUND or body.get("distinctClause", [{}]) != [{}]:
        raise NotSplit("a clause around a sub-select")
    if body.get("limitOption", "LIMIT_OPTION_DEFAULT") == "LIMIT_OPTION_WITH_TIES":
        raise NotSplit("WITH TIES in it")
    return _Around(alias, columns, type_).written(body)


class _Around:
    def __init__(
        self, alias: str, columns: Sequence[tuple[str, Node]], type_: Callable[[Node], str]
    ) -> None:
        self.alias = alias
        self.columns = columns
        self.type = type_
        self.names = [n for n, _ in columns]

    def written(self, body: Node) -> tuple[str, str]:
        head = "distinct " if "distinctClause" in body else ""
        head += ", ".join(self._target(t["ResTarget"]) for t in body.get("targetList", ()))
        shown = {str(t["ResTarget"].get("name", "")) for t in body["targetList"]}
        tail = f" where {self._text(body['whereClause'])}" if "whereClause" in body else ""
        if "groupClause" in body:
            tail += " group by " + ", ".join(self._item(g, shown) for g in body["groupClause"])
        if "havingClause" in body:
            tail += f" having {self._text(body['havingClause'])}"
        if "sortClause" in body:
            sorts = [s["SortBy"] for s in body["sortClause"]]
            tail += " order by " + ", ".join(
                self._item(s["node"], shown) + how_sorted(s) for s in sorts
            )
        for name, word in (("limitCount", "limit"), ("limitOffset", "offset")):
            if name in body:
                tail += f" {word} {self._text(body[name])}"
        return head, tail

    def _text(self, node: Node) -> str:
        return write(node, self._leaf)

    def _target(self, target: Node) -> str:
        value = target["val"]
        fields = value.get("ColumnRef", {}).get("fields", ())
        if fields and "A_Star" in fields[-1]:
            raise NotSplit("* around a sub-select")
        name = str(target.get("name") or column_name(value))
        return f"{self._text(value)} as {_quoted(name)}"

    def _item(self, node: Node, shown: set[str]) -> str:
        """What is grouped or sorted by: a place, a name, or an expression."""
        if "ival" in node.get("A_Const", {}):
            return str(node["A_Const"]["ival"].get("ival", 0))
        fields = node.get("ColumnRef", {}).get("fields", ())
        if len(fields) == 1 and fields[0].get("String", {}).get("sval") in shown:
            return _quoted(fields[0]["String"]["sval"])
        return self._text(node)

    def _leaf(self, node: Node) -> str | None:
        if "SubLink" in node:
            raise NotSplit("a sub-select around a sub-select")
        if "ColumnRef" in node:
            names = [str(f.get("String", {}).get("sval", "")) for f in node["ColumnRef"]["fields"]]
            *alias, name = names
            if self.names.count(name) != 1 or alias not in ([], [self.alias]):
                raise NotSplit("a column that is not known")
            return _quoted(*names)
        if "FuncCall" in node and function_name(node["FuncCall"]) in _AGGREGATES:
            return self._aggregate(node["FuncCall"])
        return None

    def _aggregate(self, body: Node) -> str:
        name = function_name(body)
        arguments = body.get("args", [])
        if body.keys() - _CALL or len(arguments) != (0 if body.get("agg_star") else 1):
            raise NotSplit(f"{name} with ORDER BY, or the like")
        if name in ("sum", "avg") and not is_exact(arguments[0], self._exact_type):
            raise NotSplit(f"{name} of what may depend on the order of rows, or on its type")
        distinct = "distinct " if "agg_distinct" in body else ""
        inside = ", ".join(map(self._text, arguments)) or "*"
        only = f" filter (where {self._text(body['agg_filter'])})" if "agg_filter" in body else ""
        return f"pg_catalog.{name}({distinct}{inside}){only}"

    def _exact_type(self, node: Node) -> str:
        """Of a column: that of a table, or a number that an aggregate gives, exact where it is split."""
        name = node["ColumnRef"]["fields"][-1]["String"]["sval"]
        value = next(v for n, v in self.columns if n == name)
        if "ColumnRef" in value:
            return self.type(value)
        if "FuncCall" in value and function_name(value["FuncCall"]) in ("count", "sum", "avg"):
            return "numeric"
        return ""


def _quoted(*names: str) -> str:
    return quoted(*names).replace("%", "%%")
