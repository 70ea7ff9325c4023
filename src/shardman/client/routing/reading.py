"""The columns that a question reads, and the expressions about them that nodes are asked for."""

from __future__ import annotations

from typing import Any

from shardman.client.routing.columns import known_column, plain_column, sub_select
from shardman.client.routing.joining import Find, reference
from shardman.client.routing.sources import Joined
from shardman.client.routing.writing import Node, same, write


class Columns:
    """What is read of the tables, and what each node is asked about it.

    Args:
        body: of a SELECT.
        found: its FROM.
        find: the sharded or shared table that a name means.
    """

    def __init__(self, body: Node, found: Joined, find: Find) -> None:
        self.body = body
        self.joined = found
        self.find = find
        #: The columns that are read; each is x0, x1, … of x.
        self.used: dict[str, None] = {}
        #: The columns of the answers: c0, c1, …
        self.asked: list[str] = []

    def inside(self, node: Node) -> str:
        """An expression about the rows of the tables."""
        return write(node, self._column)

    def _column(self, node: Node) -> str | None:
        if "SubLink" in node:
            return sub_select(node["SubLink"], self._column, self.joined, self.find)
        plain = plain_column(node, self.joined)
        if plain is None:
            return None
        self.used.setdefault(plain)
        return f"x.x{[*self.used].index(plain)}"

    def _same(self, node: Any) -> Any:
        """A tree to be compared: a column by whatever name it has."""
        if isinstance(node, dict) and "ColumnRef" in node:
            column = self.joined.column(node)
            return same(node if column is None else reference(column[0].alias, column[1]))
        if isinstance(node, dict) and "SubLink" in node:
            # Names in it are those of its own tables.
            body = node["SubLink"]
            tested = {"testexpr": self._same(body["testexpr"])} if "testexpr" in body else {}
            return {"SubLink": {**same(body), **tested}}
        if isinstance(node, dict):
            return {k: self._same(v) for k, v in node.items() if k != "location"}
        return [self._same(n) for n in node] if isinstance(node, list) else node

    def _ask(self, expression: str) -> str:
        """The column of the answers that has it."""
        if expression not in self.asked:
            self.asked.append(expression)
        return f"c{self.asked.index(expression)}"

    def _type(self, node: Node) -> str:
        source, name = known_column(node, self.joined)
        return source.type(name)
