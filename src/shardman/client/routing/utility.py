"""Statements that are no queries: they run on the node that was connected to."""

from __future__ import annotations

from typing import Any

from shardman.client.routing.known import MAKING, PLAIN
from shardman.client.routing.plan import Plan, Scope

Node = dict[str, Any]

_WITHIN = frozenset(
    f"TRANS_STMT_{kind}" for kind in ("COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "ROLLBACK_TO")
)
_OUTSIDE = frozenset({"TRANS_STMT_BEGIN", "TRANS_STMT_START"})


def utility(kind: str, body: Node) -> Plan:
    """The plan of a statement that is neither SELECT nor INSERT, UPDATE, DELETE."""
    if kind == "TransactionStmt":
        scope = Scope.TRANSACTION if body["kind"] in _WITHIN else Scope.HERE
        pins = "" if body["kind"] in _WITHIN | _OUTSIDE else "session"
        return Plan(scope, "it begins or ends a transaction", pins=pins)
    if kind in PLAIN:
        return Plan(Scope.HERE, f"{kind} is not sent to owners", alters=kind == "TruncateStmt")
    if kind in MAKING:
        pins = "session" if _is_temporary(body) else ""
        return Plan(Scope.HERE, f"{kind} is not sent to owners", pins=pins, alters=True)
    if kind == "VariableSetStmt":
        if body.get("name", "").startswith("TRANSACTION"):
            return Plan(Scope.HERE, "it sets how a transaction is")
        pins = "transaction" if body.get("is_local") else "session"
        return Plan(Scope.HERE, "it sets something for the session", pins=pins)
    return Plan(Scope.HERE, f"{kind} is not sent to owners", pins="session")


def _is_temporary(node: Any) -> bool:
    if isinstance(node, list):
        return any(map(_is_temporary, node))
    if not isinstance(node, dict):
        return False
    schema = node.get("schemaname")
    if node.get("relpersistence") == "t" or (isinstance(schema, str) and schema[:7] == "pg_temp"):
        return True
    return any(map(_is_temporary, node.values()))
