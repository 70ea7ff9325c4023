"""Whether all in an expression means the same on every node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from shardman.client.routing.facts import Relation
from shardman.client.routing.known import SAFE_FUNCTIONS, SAFE_NODES, SAFE_TYPES
from shardman.client.routing.picture import Picture

Node = dict[str, Any]


class NotHere(Exception):
    """Something in the statement is not understood, or may be of one node only; the argument says what."""


@dataclass
class Level:
    """One SELECT, INSERT, UPDATE or DELETE, with what its names mean.

    Args:
        outer: the levels around it whose columns it can name, the nearest first.
        ctes: names of WITH that it can see.
        merged: columns of USING, which are no single relation's.
        sharded: the sharded tables in it.
        place: where its condition can be added to.
        merges: it is a MERGE, which looks for rows and writes them.
        bare: it has no condition, and nothing stands behind the place of one.
    """

    outer: tuple[Level, ...] = ()
    ctes: frozenset[str] = frozenset()
    relations: list[Relation] = field(default_factory=list)
    merged: set[str] = field(default_factory=set)
    sharded: list[Relation] = field(default_factory=list)
    place: int | None = None
    merges: bool = False
    bare: bool = False


class Expressions:
    """Walks through expressions; who inherits it knows what a sub-select is."""

    picture: Picture

    def statement(self, kind: str, body: Node, level: Level) -> None:
        """Reads a statement inside of this one."""
        raise NotImplementedError

    def expression(self, node: Any, level: Level) -> None:
        """Whether all in it is understood.

        Raises:
            NotHere: something is not.
        """
        if isinstance(node, list):
            for each in node:
                self.expression(each, level)
        elif isinstance(node, dict):
            for name, value in node.items():
                if name[:1].isupper():
                    self.node(name, value, level)
                elif name == "typeName":
                    self.type(value)
                elif isinstance(value, dict | list):
                    self.expression(value, level)

    def node(self, kind: str, body: Any, level: Level) -> None:
        if kind == "ColumnRef":
            self.reference(body["fields"], level)
        elif kind == "FuncCall":
            self.call(body)
            self.expression({k: v for k, v in body.items() if k != "funcname"}, level)
        elif kind == "A_Expr":
            if len(body["name"]) != 1:
                raise NotHere("OPERATOR()")
            self.expression({k: v for k, v in body.items() if k != "name"}, level)
        elif kind == "SubLink":
            self.expression(body.get("testexpr"), level)
            ((inner, query),) = body["subselect"].items()
            self.statement(inner, query, Level((level, *level.outer), level.ctes))
        elif kind == "TypeCast":
            self.type(body["typeName"])
            self.expression(body["arg"], level)
        elif kind in SAFE_NODES:
            self.expression(body, level)
        else:
            raise NotHere(f"{kind} is not understood")

    def reference(self, fields: list[Node], level: Level) -> None:
        names = [f["String"]["sval"] for f in fields if "String" in f]
        if len(fields) > 2:
            raise NotHere("a column with its schema")
        if names and names[-1] == "tableoid":
            raise NotHere("tableoid")
        if len(fields) == 1 and names:
            rows = [r for each in (level, *level.outer) for r in each.relations if r.target_or_none]
            if any(r.alias == names[0] for r in rows):
                raise NotHere("a whole row as a value")

    def call(self, body: Node) -> None:
        names = [f["String"]["sval"] for f in body["funcname"]]
        if names[:-1] not in ([], ["pg_catalog"]) or names[-1] not in SAFE_FUNCTIONS:
            raise NotHere(f"the function {'.'.join(names)}")
        if names[-1] in self.picture.functions:
            raise NotHere(f"{names[-1]} may be a function of yours")

    def type(self, body: Node) -> None:
        names = [n["String"]["sval"] for n in body.get("names", ())]
        if names[:-1] not in ([], ["pg_catalog"]) or (names[-1:] and names[-1] not in SAFE_TYPES):
            raise NotHere(f"a cast to {'.'.join(names)}")


def is_star(expression: Node) -> bool:
    """Whether it is a *."""
    return "ColumnRef" in expression and any(
        "A_Star" in f for f in expression["ColumnRef"]["fields"]
    )


def nodes(node: Any, kind: str) -> Iterator[Node]:
    """All nodes of a kind, wherever they are."""
    if isinstance(node, list):
        for each in node:
            yield from nodes(each, kind)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name == kind:
                yield value
            yield from nodes(value, kind)
