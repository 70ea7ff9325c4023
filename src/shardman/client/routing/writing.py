"""Writes expressions anew from their tree. What is not known here is no part of a question that is split."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from shardman.client.routing.divisible import (
    EXACT_CASTS,
    EXACT_TYPES,
    OPERATORS,
    PLAIN_CASTS,
    SCALARS,
)
from shardman.client.routing.known import SAFE_TYPES
from shardman.client.routing.picture import quoted

Node = dict[str, Any]
#: Writes a node in a way of its own; None: as it is.
Leaf = Callable[[Node], str | None]

_KINDS = {
    "AEXPR_LIKE": {"~~": "like", "!~~": "not like"},
    "AEXPR_ILIKE": {"~~*": "ilike", "!~~*": "not ilike"},
    "AEXPR_DISTINCT": {"=": "is distinct from"},
    "AEXPR_NOT_DISTINCT": {"=": "is not distinct from"},
}
_BETWEEN = {"AEXPR_BETWEEN": "between", "AEXPR_NOT_BETWEEN": "not between"}
_TESTS = {
    "IS_NULL": "is null",
    "IS_NOT_NULL": "is not null",
    "IS_TRUE": "is true",
    "IS_NOT_TRUE": "is not true",
    "IS_FALSE": "is false",
    "IS_NOT_FALSE": "is not false",
    "IS_UNKNOWN": "is unknown",
    "IS_NOT_UNKNOWN": "is not unknown",
}
#: As the parser has the field of an interval: INTERVAL_MASK of datetime.h.
_FIELDS_OF_TIME = {
    1 << 2: "year",
    1 << 1: "month",
    1 << 3: "day",
    1 << 10: "hour",
    1 << 11: "minute",
    1 << 12: "second",
}
#: They are read by each node's own clock.
_CLOCK = re.compile(r"\b(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
_CLOCK_LENGTH = 60


_ORDERS = {"SORTBY_DEFAULT": "", "SORTBY_ASC": " asc", "SORTBY_DESC": " desc"}
_NULLS = {
    "SORTBY_NULLS_DEFAULT": "",
    "SORTBY_NULLS_FIRST": " nulls first",
    "SORTBY_NULLS_LAST": " nulls last",
}


class NotSplit(Exception):
    """The question cannot be answered in parts; the argument says why."""


def tells_time(value: Any) -> bool:
    """Whether a text may mean the time at which it is read."""
    return isinstance(value, str) and len(value) < _CLOCK_LENGTH and bool(_CLOCK.search(value))


def same(node: Any) -> Any:
    """A tree without the places in the text, to be compared."""
    if isinstance(node, dict):
        return {k: same(v) for k, v in node.items() if k != "location"}
    return [same(n) for n in node] if isinstance(node, list) else node


def how_sorted(sort: Node) -> str:
    """How something is sorted."""
    if "useOp" in sort:
        raise NotSplit("USING in its ORDER BY")
    return _ORDERS[sort["sortby_dir"]] + _NULLS[sort["sortby_nulls"]]


def literal(text: str) -> str:
    """A literal, in a text with placeholders."""
    if "\\" in text:
        raise NotSplit("a literal with a backslash")
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"


def function_name(body: Node) -> str:
    """A function of PostgreSQL's by its name."""
    names = [str(f["String"]["sval"]) for f in body["funcname"]]
    return names[-1] if names[:-1] in ([], ["pg_catalog"]) else ""


def write(node: Node, leaf: Leaf) -> str:
    """An expression, in parentheses where it needs them.

    Raises:
        NotSplit: something in it is not known.
    """
    found = leaf(node)
    if found is not None:
        return found
    ((kind, body),) = node.items()
    writer = _WRITERS.get(kind)
    if writer is None:
        raise NotSplit(f"{kind} in it")
    return writer(body, leaf)


def _constant(body: Node, _leaf: Leaf) -> str:
    if body.get("isnull"):
        return "null"
    if "ival" in body:
        return f"({body['ival'].get('ival', 0)})"
    if "fval" in body:
        return f"({body['fval']['fval']})"
    if "boolval" in body:
        return "true" if body["boolval"].get("boolval") else "false"
    if "sval" in body:
        text = body["sval"].get("sval", "")
        if tells_time(text):
            raise NotSplit("a literal that may mean the time")
        return literal(text)
    raise NotSplit("a literal that is not known")


def _parameter(body: Node, _leaf: Leaf) -> str:
    return f"%(p{body['number']})s"


def _operation(body: Node, leaf: Leaf) -> str:
    kind = body["kind"]
    if len(body["name"]) != 1:
        raise NotSplit("OPERATOR()")
    name = body["name"][0]["String"]["sval"]
    left = write(body["lexpr"], leaf) if "lexpr" in body else ""
    if kind in ("AEXPR_IN", *_BETWEEN):
        items = [write(i, leaf) for i in body["rexpr"]["List"]["items"]]
        if kind == "AEXPR_IN":
            return f"({left} {'in' if name == '=' else 'not in'} ({', '.join(items)}))"
        return f"({left} {_BETWEEN[kind]} {items[0]} and {items[1]})"
    right = write(body["rexpr"], leaf)
    if kind == "AEXPR_NULLIF":
        return f"nullif({left}, {right})"
    if kind == "AEXPR_OP_ANY" and name == "=" and "ParamRef" in body["rexpr"]:
        return f"({left} = any ({right}))"
    if kind == "AEXPR_OP" and name in OPERATORS:
        return f"({left} {name.replace('%', '%%')} {right})"
    if name in _KINDS.get(kind, {}):
        return f"({left} {_KINDS[kind][name]} {right})"
    raise NotSplit(f"the operator {name}")


def _boolean(body: Node, leaf: Leaf) -> str:
    parts = [write(a, leaf) for a in body["args"]]
    if body["boolop"] == "NOT_EXPR":
        return f"(not {parts[0]})"
    return "(" + {"AND_EXPR": " and ", "OR_EXPR": " or "}[body["boolop"]].join(parts) + ")"


def _test(body: Node, leaf: Leaf) -> str:
    return (
        f"({write(body['arg'], leaf)} {_TESTS[body.get('nulltesttype') or body['booltesttype']]})"
    )


def _cast(body: Node, leaf: Leaf) -> str:
    type_ = body["typeName"]
    names = [n["String"]["sval"] for n in type_.get("names", ())]
    if type_.keys() - {"names", "typmods", "typemod", "location"} or type_.get("typemod", -1) != -1:
        raise NotSplit("a cast to an array")
    if names[:-1] not in ([], ["pg_catalog"]) or names[-1] not in SAFE_TYPES:
        raise NotSplit(f"a cast to {'.'.join(names)}")
    if names[-1] not in PLAIN_CASTS and not body["arg"].keys() & {"A_Const", "ParamRef"}:
        raise NotSplit(f"a cast of an expression to {names[-1]}")
    if "typmods" in type_:
        return _cast_to_length(names[-1], _numbers(type_["typmods"]), write(body["arg"], leaf))
    return f"({write(body['arg'], leaf)}::pg_catalog.{quoted(names[-1])})"


def _cast_to_length(type_: str, numbers: Sequence[int], value: str) -> str:
    if type_ == "interval" and len(numbers) == 1 and numbers[0] in _FIELDS_OF_TIME:
        return f"(cast({value} as interval {_FIELDS_OF_TIME[numbers[0]]}))"
    if type_ not in ("numeric", "varchar", "bpchar"):
        raise NotSplit(f"a cast to {type_} with a length")
    return f"({value}::pg_catalog.{type_}({', '.join(map(str, numbers))}))"


def _numbers(items: Sequence[Node]) -> list[int]:
    found = [i.get("A_Const", {}).get("ival") for i in items]
    if any(f is None for f in found):
        raise NotSplit("a cast to a type with a length that is no number")
    return [int(f.get("ival", 0)) for f in found]


def _call(body: Node, leaf: Leaf) -> str:
    name = function_name(body)
    if name not in SCALARS or body.keys() - {"funcname", "args", "funcformat", "location"}:
        raise NotSplit(f"the function {name}")
    arguments = ", ".join(write(a, leaf) for a in body.get("args", ()))
    return f"pg_catalog.{quoted(name)}({arguments})"


def _case(body: Node, leaf: Leaf) -> str:
    whens = [
        f"when {write(w['CaseWhen']['expr'], leaf)} then {write(w['CaseWhen']['result'], leaf)}"
        for w in body["args"]
    ]
    of = write(body["arg"], leaf) if "arg" in body else ""
    otherwise = f" else {write(body['defresult'], leaf)}" if "defresult" in body else ""
    return f"(case {of} {' '.join(whens)}{otherwise} end)"


def _several(name: str) -> Callable[[Node, Leaf], str]:
    return lambda body, leaf: f"{name}({', '.join(write(a, leaf) for a in body['args'])})"


def _greatest(body: Node, leaf: Leaf) -> str:
    return _several({"IS_GREATEST": "greatest", "IS_LEAST": "least"}[body["op"]])(body, leaf)


_WRITERS: dict[str, Callable[[Node, Leaf], str]] = {
    "A_Const": _constant,
    "ParamRef": _parameter,
    "A_Expr": _operation,
    "BoolExpr": _boolean,
    "NullTest": _test,
    "BooleanTest": _test,
    "TypeCast": _cast,
    "FuncCall": _call,
    "CaseExpr": _case,
    "CoalesceExpr": _several("coalesce"),
    "MinMaxExpr": _greatest,
}


def is_exact(node: Node, type_of: Callable[[Node], str]) -> bool:
    """Whether it is a number whose sums are the same in any order.

    Args:
        type_of: of a column.
    """
    ((kind, body),) = node.items()
    if kind == "ColumnRef":
        return type_of(node) in EXACT_TYPES
    if kind == "A_Const":
        return "ival" in body or "fval" in body
    if kind == "TypeCast":
        return body["typeName"]["names"][-1]["String"]["sval"] in EXACT_CASTS
    if kind == "CoalesceExpr":
        return all(is_exact(a, type_of) for a in body["args"])
    if kind == "A_Expr" and body["kind"] == "AEXPR_OP":
        sides = [body[s] for s in ("lexpr", "rexpr") if s in body]
        name = body["name"][-1]["String"]["sval"]
        return name in ("+", "-", "*", "/", "%") and all(is_exact(s, type_of) for s in sides)
    return False


def column_name(node: Node) -> str:
    """What PostgreSQL calls a column of an answer that is given no name.

    Raises:
        NotSplit: not known here.
    """
    return _figured(node)[0]


def _figured(node: Node) -> tuple[str, int]:
    """The name, and how sure it is: 2 of a column or a function, 1 of a type or CASE (parse_target.c)."""
    ((kind, body),) = node.items()
    if kind == "ColumnRef":
        return str(body["fields"][-1]["String"]["sval"]), 2
    if kind == "FuncCall":
        return function_name(body), 2
    if kind == "CoalesceExpr":
        return "coalesce", 2
    if kind == "MinMaxExpr":
        return {"IS_GREATEST": "greatest", "IS_LEAST": "least"}[body["op"]], 2
    if kind == "A_Expr" and body["kind"] == "AEXPR_NULLIF":
        return "nullif", 2
    if kind in ("A_Const", "ParamRef", "BoolExpr", "NullTest", "BooleanTest", "A_Expr"):
        return "?column?", 0
    if kind not in ("TypeCast", "CaseExpr"):
        raise NotSplit(f"the name of the column that {kind} gives")
    inner = body.get("arg" if kind == "TypeCast" else "defresult")
    found = _figured(inner) if inner else ("", 0)
    if found[1] > 1:
        return found
    return (body["typeName"]["names"][-1]["String"]["sval"] if kind == "TypeCast" else "case"), 1
