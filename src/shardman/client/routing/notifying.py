"""NOTIFY, which PostgreSQL prepares no transaction with: it is of the part that decides."""

from __future__ import annotations

from typing import Any

Node = dict[str, Any]

#: Of the tree of `select pg_notify(…)`; all else in it (FROM, WHERE, WITH) may need other nodes.
_SELECT = frozenset(("targetList", "limitOption", "op"))
#: What its arguments may be made of.
_VALUES = frozenset(("A_Const", "A_Expr", "ParamRef", "TypeCast"))
_NAMES = (["pg_notify"], ["pg_catalog", "pg_notify"])


def notifies(kind: str, body: Node) -> bool:
    """Whether a statement does nothing but notify, by values that it names."""
    if kind == "NotifyStmt":
        return True
    targets = body.get("targetList", ())
    if kind != "SelectStmt" or not body.keys() <= _SELECT or len(targets) != 1:
        return False
    call = targets[0]["ResTarget"]["val"].get("FuncCall", {})
    name = [part["String"]["sval"] for part in call.get("funcname", ())]
    return name in _NAMES and all(map(_is_value, call.get("args", ())))


def _is_value(node: Node) -> bool:
    ((kind, body),) = node.items()
    inner = [body[side] for side in ("arg", "lexpr", "rexpr") if side in body]
    return kind in _VALUES and all(map(_is_value, inner))
