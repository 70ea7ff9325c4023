"""MERGE whose source is rows of values: each of them is matched by the key with rows of its own partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shardman.client.routing.expressions import Node


class NotByKey(Exception):
    """Nothing says which keys it is about; the argument says why."""


@dataclass(frozen=True)
class Rows:
    """The source.

    Args:
        alias: what it is called.
        columns: of each row.
        values: the rows.
    """

    alias: str
    columns: tuple[str, ...]
    values: tuple[tuple[Node, ...], ...]


def source(item: Node) -> Rows:
    """Reads what stands behind USING.

    Raises:
        NotByKey: it is not rows of values.
    """
    body = item.get("RangeSubselect", {})
    select = body.get("subquery", {}).get("SelectStmt", {})
    if body.get("lateral") or select.keys() - {"valuesLists", "targetList", "limitOption", "op"}:
        raise NotByKey("its source is not rows of values")
    alias = body.get("alias", {})
    named = tuple(str(n["String"]["sval"]) for n in alias.get("colnames", ()))
    if "valuesLists" in select:
        rows = [tuple(r["List"]["items"]) for r in select["valuesLists"]]
        columns = (*named, *(f"column{i + 1}" for i in range(len(named), len(rows[0]))))
    elif select.get("op") == "SETOP_NONE" and "targetList" in select and not named:
        targets = [t["ResTarget"] for t in select["targetList"]]
        rows = [tuple(t["val"] for t in targets)]
        columns = tuple(str(t.get("name", "")) for t in targets)
    else:
        raise NotByKey("its source is not rows of values")
    return Rows(str(alias.get("aliasname", "")), columns, tuple(rows))


def matched(condition: Node, target: str, key: Sequence[str], rows: Rows) -> Mapping[str, str]:
    """The column of the source to which each column of the key is equal.

    Args:
        target: what the table is called.

    Raises:
        NotByKey: one of them is not.
    """
    found: dict[str, str] = {}
    for body in _equalities(condition):
        sides = [_names(body.get("lexpr", {})), _names(body["rexpr"])]
        for one, other in (sides, sides[::-1]):
            if (
                one is not None
                and other is not None
                and one[:-1] == (target,)
                and one[-1] in key
                and other[:-1] == (rows.alias,)
                and rows.columns.count(other[-1]) == 1
            ):
                found[one[-1]] = other[-1]
    if set(found) != set(key):
        raise NotByKey("its condition does not say that the key is equal to columns of the source")
    return found


def column(node: Node, rows: Rows) -> str | None:
    """The column of the source that an expression is."""
    names = _names(node)
    return names[-1] if names is not None and names[:-1] == (rows.alias,) else None


def _equalities(condition: Node) -> Iterator[Node]:
    body = condition.get("BoolExpr", {})
    if body.get("boolop") == "AND_EXPR":
        for each in body["args"]:
            yield from _equalities(each)
    equal = condition.get("A_Expr", {})
    if equal.get("kind") == "AEXPR_OP" and [n["String"]["sval"] for n in equal["name"]] == ["="]:
        yield equal


def _names(node: Node) -> tuple[str, ...] | None:
    fields = node.get("ColumnRef", {}).get("fields", ())
    names = tuple(str(f["String"]["sval"]) for f in fields if "String" in f)
    return names if names and len(names) == len(fields) == 2 else None
