"""Statements that are no queries: they run on the node that was connected to."""

from __future__ import annotations

from typing import Any

from shardman.client.held import Act, Said
from shardman.client.routing.known import HELD_SETTINGS, MAKING, PLAIN
from shardman.client.routing.notifying import notifies
from shardman.client.routing.plan import Plan, Scope

Node = dict[str, Any]

_WITHIN = frozenset(
    f"TRANS_STMT_{kind}" for kind in ("COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "ROLLBACK_TO")
)
_ENDS = {"TRANS_STMT_COMMIT": "commit", "TRANS_STMT_ROLLBACK": "rollback"}
_OUTSIDE = frozenset({"TRANS_STMT_BEGIN", "TRANS_STMT_START"})
_SAVEPOINTS = {
    "TRANS_STMT_SAVEPOINT": Act.SAVEPOINT,
    "TRANS_STMT_RELEASE": Act.RELEASE,
    "TRANS_STMT_ROLLBACK_TO": Act.ROLLBACK_TO,
}


def utility(kind: str, body: Node) -> Plan:
    """The plan of a statement that is neither SELECT nor INSERT, UPDATE, DELETE."""
    if kind == "TransactionStmt":
        return _of_transaction(body)
    if kind == "VariableShowStmt":
        return Plan(Scope.ANYWHERE, "it shows a setting", reads=True)
    if kind == "ConstraintsSetStmt":
        said = None if body.get("constraints") else Said(Act.SET)
        return Plan(Scope.HERE, "it sets how a transaction is", pins="transaction", said=said)
    if kind == "DeallocateStmt":
        # Those that PREPARE makes keep the session here; psycopg's own are each node's.
        return Plan(Scope.ANYWHERE, "no node has prepared it as a text", reads=True)
    if kind == "DiscardStmt":
        return Plan(Scope.HERE, "it is of the session", frees=body.get("target") == "DISCARD_ALL")
    if kind in ("ListenStmt", "UnlistenStmt"):
        listens = (kind == "ListenStmt", body.get("conditionname", ""))
        return Plan(Scope.HERE, f"{kind} is not sent to owners", listens=listens)
    if kind in PLAIN:
        why, alters = f"{kind} is not sent to owners", kind == "TruncateStmt"
        return Plan(Scope.HERE, why, alters=alters, notifies=notifies(kind, body))
    if kind in MAKING:
        pins = "session" if _is_temporary(body) else ""
        return Plan(Scope.HERE, f"{kind} is not sent to owners", pins=pins, alters=True)
    if kind == "VariableSetStmt":
        return _setting(body)
    return Plan(Scope.HERE, f"{kind} is not sent to owners", pins="session")


def _of_transaction(body: Node) -> Plan:
    act = _SAVEPOINTS.get(body["kind"])
    if act is not None:
        said = Said(act, body["savepoint_name"])
        return Plan(Scope.TRANSACTION, "it is about a savepoint", said=said)
    scope = Scope.TRANSACTION if body["kind"] in _WITHIN else Scope.HERE
    pins = "" if body["kind"] in _WITHIN | _OUTSIDE else "session"
    ends = "" if body.get("chain") else _ENDS.get(body["kind"], "")
    return Plan(scope, "it begins or ends a transaction", pins=pins, ends=ends)


def _setting(body: Node) -> Plan:
    name = body.get("name", "")
    if name.startswith("TRANSACTION"):
        # A snapshot that was exported is one node's.
        said = Said(Act.SET) if name == "TRANSACTION" else None
        return Plan(Scope.HERE, "it sets how a transaction is", said=said)
    if not body.get("is_local"):
        return Plan(Scope.HERE, "it sets something for the session", pins="session")
    said = Said(Act.SET) if name in HELD_SETTINGS else None
    return Plan(Scope.HERE, "it sets something for the transaction", pins="transaction", said=said)


def is_until_the_end(set_config: Node) -> bool:
    """Whether a call of set_config says by a literal that it is for the transaction only."""
    args = set_config.get("args", ())
    literal = args[2].get("A_Const", {}) if len(args) == 3 else {}
    return bool(literal.get("boolval", {}).get("boolval"))


def _is_temporary(node: Any) -> bool:
    if isinstance(node, list):
        return any(map(_is_temporary, node))
    if not isinstance(node, dict):
        return False
    schema = node.get("schemaname")
    if node.get("relpersistence") == "t" or (isinstance(schema, str) and schema[:7] == "pg_temp"):
        return True
    return any(map(_is_temporary, node.values()))
