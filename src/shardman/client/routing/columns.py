"""Columns of a question's tables, and sub-selects of shared ones, written anew."""

from __future__ import annotations

from shardman.client.routing.divisible import COLUMN_TYPES, LOOKED_UP
from shardman.client.routing.joining import Find, Write, joined
from shardman.client.routing.picture import quoted
from shardman.client.routing.sources import Joined, Source
from shardman.client.routing.writing import Leaf, Node, NotSplit, function_name, write

_SELECT_FIELDS = frozenset(("targetList", "fromClause", "whereClause", "limitOption", "op"))
_CALL_FIELDS = frozenset(("funcname", "args", "agg_star", "funcformat", "location"))


def plain_column(node: Node, found: Joined) -> str | None:
    """A column by the name of its table; None for all else."""
    if "ColumnRef" not in node:
        return None
    source, name = known_column(node, found)
    return quoted(source.alias, name).replace("%", "%%")


def known_column(node: Node, found: Joined) -> tuple[Source, str]:
    """The column that a name means.

    Raises:
        NotSplit: it is not clear, or the column compares in a way of its own.
    """
    column = found.column(node)
    if column is None:
        raise NotSplit("a column that is not known")
    if column[0].type(column[1]) not in COLUMN_TYPES:
        raise NotSplit(f"the type or the collation of {column[1]}")
    return column


def written(find: Find) -> Write:
    """Writes conditions about the rows of tables."""

    def condition(node: Node, found: Joined) -> str:
        def leaf(each: Node) -> str | None:
            if "SubLink" in each:
                return sub_select(each["SubLink"], leaf, found, find)
            return plain_column(each, found)

        return write(node, leaf)

    return condition


def sub_select(body: Node, leaf: Leaf, around: Joined, find: Find) -> str:
    """A sub-select of shared tables, which each node answers for itself: IN, EXISTS, or one value.

    Args:
        leaf: writes what stands around it.

    Raises:
        NotSplit: it is another, or says something of the rows around it.
    """
    ((kind, select),) = body["subselect"].items()
    if kind != "SelectStmt" or select.keys() - _SELECT_FIELDS or select["op"] != "SETOP_NONE":
        raise NotSplit("a sub-select that is not plain")
    found = joined(select.get("fromClause", ()), None, find, written(find))
    if found.sharded:
        raise NotSplit("a sub-select of a sharded table")
    around.looks_up = True

    def inner(node: Node) -> str | None:
        if "FuncCall" in node and function_name(node["FuncCall"]) in LOOKED_UP:
            call = node["FuncCall"]
            if call.keys() - _CALL_FIELDS:
                raise NotSplit("an aggregate in a sub-select that is not plain")
            arguments = ", ".join(write(a, inner) for a in call.get("args", ())) or "*"
            return f"pg_catalog.{function_name(call)}({arguments})"
        return plain_column(node, found)

    targets = ", ".join(write(t["ResTarget"]["val"], inner) for t in select["targetList"])
    where = f" where {write(select['whereClause'], inner)}" if "whereClause" in select else ""
    text = f"(select {targets} from {found.text(0)}{where})"  # noqa: S608 - all in quotes
    match body["subLinkType"]:
        case "EXISTS_SUBLINK":
            return f"(exists {text})"
        case "EXPR_SUBLINK":
            return text
        case "ANY_SUBLINK" if "operName" not in body:
            return f"({write(body['testexpr'], leaf)} in {text})"
    raise NotSplit("a sub-select with ANY or ALL")
