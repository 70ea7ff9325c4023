"""What a statement says of the keys of its tables.

A key is known by a value that it is equal to, or by another key that it is equal to and that is known. From an
outer join, or inside of a sub-select, nothing follows for the side or the level that keeps its rows: so an
equality leads one way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from shardman.client.routing.picture import Table
from shardman.client.routing.placeholders import Name
from shardman.client.routing.plan import Literal, Parameter, Source, Target, Typed
from shardman.client.routing.values import TYPE_NAMES, family

Node = dict[str, Any]
_DIGITS = re.compile(r"-?[0-9]+", re.ASCII)


@dataclass(eq=False)
class Relation:
    """What a name in a statement stands for; without a table it is a sub-select, a function, or the like."""

    alias: str
    table: Table | None = None
    target_or_none: Target | None = None

    @property
    def target(self) -> Target:
        """Where it stands in the text; of a sharded table."""
        assert self.target_or_none is not None
        return self.target_or_none

    @target.setter
    def target(self, value: Target) -> None:
        self.target_or_none = value

    @property
    def table_name(self) -> str:
        """For sentences."""
        return self.table.name if self.table else self.alias

    @property
    def key_names(self) -> tuple[str, ...]:
        """The columns of its key."""
        return tuple(c.name for c in self.table.key) if self.table else ()


#: A column of the key of a sharded table.
Key = tuple[Relation, str]
Resolver = Callable[[list[Node]], Key | None]


class Facts:
    """Collects them, then spreads them along equalities."""

    def __init__(self, parameters: Sequence[Name]) -> None:
        self._parameters = parameters
        self._known: dict[Key, tuple[Source, ...]] = {}
        self._edges: list[tuple[Key, Key]] = []
        self._rows: dict[Relation, list[dict[str, tuple[Source, ...] | Key]]] = {}

    def equal(self, one: Key, other: Key, only: Sequence[Relation]) -> None:
        """Two columns are equal where it matters for the relations in ``only``."""
        if _type(one) is None or _type(one) != _type(other):
            return
        self._edges += [(a, b) for a, b in ((one, other), (other, one)) if b[0] in only]

    def condition(self, node: Node, resolve: Resolver, only: Sequence[Relation]) -> None:
        """Everything that a condition says, with AND between."""
        ((kind, body),) = node.items()
        if kind == "BoolExpr" and body["boolop"] == "AND_EXPR":
            for each in body["args"]:
                self.condition(each, resolve, only)
        elif kind == "A_Expr" and _operator(body) == "=":
            if body["kind"] == "AEXPR_OP":
                self._equality(body, resolve, only)
            elif body["kind"] in ("AEXPR_IN", "AEXPR_OP_ANY"):
                key = self._key(body["lexpr"], resolve)
                values = several(body["rexpr"], self._parameters)
                if key is not None and key[0] in only and values:
                    self._know(key, values)

    def _equality(self, body: Node, resolve: Resolver, only: Sequence[Relation]) -> None:
        if "lexpr" not in body:
            return
        left, right = self._key(body["lexpr"], resolve), self._key(body["rexpr"], resolve)
        if left is not None and right is not None:
            self.equal(left, right, only)
            return
        key, other = (left, body["rexpr"]) if left is not None else (right, body["lexpr"])
        value = source(other, self._parameters)
        if key is not None and key[0] in only and value is not None:
            self._know(key, (value,))

    def _know(self, key: Key, values: tuple[Source, ...]) -> None:
        # One value says more than several.
        if key not in self._known or len(values) < len(self._known[key]):
            self._known[key] = values

    def _key(self, node: Node, resolve: Resolver) -> Key | None:
        if "ColumnRef" not in node:
            return None
        found = resolve(node["ColumnRef"]["fields"])
        return found if found is not None and found[1] in found[0].key_names else None

    def row(self, target: Relation, values: Mapping[str, Node], resolve: Resolver) -> None:
        """A row that is written, its expressions by the names of the columns."""
        row: dict[str, tuple[Source, ...] | Key] = {}
        for name in target.key_names:
            node = values.get(name)
            if node is None:
                continue
            value, key = source(node, self._parameters), self._key(node, resolve)
            if value is not None:
                row[name] = (value,)
            elif key is not None and _type(key) == _type((target, name)):
                row[name] = key
        self._rows.setdefault(target, []).append(row)

    def lists(self, target: Relation, values: Mapping[str, Node]) -> None:
        """Rows that are written, each column a list."""
        row: dict[str, tuple[Source, ...] | Key] = {}
        for name in target.key_names:
            found = several(values[name], self._parameters) if name in values else ()
            if len(found) == 1:
                row[name] = found
        self._rows.setdefault(target, []).append(row)

    def spread(self) -> None:
        """Along equalities, until nothing new is known."""
        changed = True
        while changed:
            changed = False
            for source_, target in self._edges:
                if source_ in self._known and target not in self._known:
                    self._known[target] = self._known[source_]
                    changed = True

    def keys(self, relation: Relation) -> tuple[tuple[tuple[Source, ...], ...], ...] | None:
        """The keys that a relation is about, as `Target.keys`; None where they are not known."""
        if relation in self._rows:
            rows = self._rows[relation]
        else:
            rows = [{name: (relation, name) for name in relation.key_names}]
        found = []
        for row in rows:
            key = [self._resolved(row.get(name)) for name in relation.key_names]
            if not key or any(k is None for k in key):
                return None
            found.append(tuple(k for k in key if k is not None))
        return tuple(found)

    def _resolved(self, known: tuple[Source, ...] | Key | None) -> tuple[Source, ...] | None:
        if known is None or not isinstance(known[0], Relation):
            return known
        return self._known.get(known)


def _operator(body: Node) -> str:
    return str(body["name"][0]["String"]["sval"]) if len(body["name"]) == 1 else ""


def _type(key: Key) -> str | None:
    """What two columns must have in common to be equal by their hashes."""
    relation, name = key
    for column in relation.table.key if relation.table else ():
        if column.name == name:
            return family(column.type)
    return None


def source(node: Node, parameters: Sequence[Name]) -> Source | None:
    """A literal or a parameter, with or without a cast; None for all else."""
    ((kind, body),) = node.items()
    if kind == "A_Const":
        return literal(body)
    if kind == "ParamRef":
        return _parameter(body, parameters)
    if kind == "TypeCast":
        type_ = _cast(body["typeName"], array=False)
        inner = source(body["arg"], parameters)
        if type_ is not None and inner is not None and not isinstance(inner, Typed):
            return Typed(inner, type_)
    return None


def _parameter(body: Node, parameters: Sequence[Name], *, many: bool = False) -> Parameter | None:
    number = body.get("number", 0)
    return Parameter(parameters[number - 1], many) if 0 < number <= len(parameters) else None


def _cast(type_name: Node, *, array: bool) -> str | None:
    """The type of a cast, as format_type has it, where it neither cuts nor rounds."""
    if ("arrayBounds" in type_name) != array or "typmods" in type_name or "setof" in type_name:
        return None
    names = [n["String"]["sval"] for n in type_name.get("names", ())]
    return TYPE_NAMES.get(names[-1]) if names[:-1] in ([], ["pg_catalog"]) and names else None


def several(node: Any, parameters: Sequence[Name]) -> tuple[Source, ...]:
    """The values behind IN, or in = ANY; nothing where one of them is not clear."""
    ((kind, body),) = node.items()
    if kind in ("List", "A_ArrayExpr"):
        items = body.get("items" if kind == "List" else "elements", ())
        values = [source(each, parameters) for each in items]
        return () if None in values else tuple(v for v in values if v is not None)
    if kind == "ParamRef":
        found = _parameter(body, parameters, many=True)
        return () if found is None else (found,)
    if kind == "TypeCast" and "ParamRef" in body["arg"]:
        type_ = _cast(body["typeName"], array=True)
        found = _parameter(body["arg"]["ParamRef"], parameters, many=True)
        return () if type_ is None or found is None else (Typed(found, type_),)
    return ()


def literal(body: Node) -> Literal | None:
    """The value of a constant; None for null, and for what has no type of its own in Python."""
    if "ival" in body:
        return Literal(body["ival"].get("ival", 0))
    if "fval" in body:
        text = body["fval"]["fval"]
        return Literal(int(text) if _DIGITS.fullmatch(text) else Decimal(text.replace("_", "")))
    if "sval" in body:
        return Literal(body["sval"].get("sval", ""))
    if "boolval" in body:
        return Literal(body["boolval"].get("boolval", False))
    return None
