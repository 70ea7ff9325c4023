"""Statements that touch several partitions, and whose effect and answer are those of their parts, one for each.

That is so for the rows of VALUES, each of which belongs to one partition, and for a condition that names keys:
a part looks at the rows of its own partition. What looks at other tables, sorts, counts or groups is no such
statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from shardman.client.routing.expressions import Node, nodes
from shardman.client.routing.known import AGGREGATES
from shardman.client.routing.parts import Row, Split
from shardman.client.routing.placeholders import Name, Text
from shardman.client.routing.writing import NotSplit, tells_time

_BEFORE_ROWS = re.compile(r"\bvalues\s*\(\s*$", re.IGNORECASE)
_BETWEEN_ROWS = re.compile(r"\s*,\s*\(")
#: What has parentheses in it, or none: strings, names in quotes. No comments, backslashes, dollars.
_TOKEN = re.compile(
    r"""'(?:[^'\\]|'')*'|"(?:[^"]|"")*"|\$[0-9]+|[()]|[^'"()$\\/-]+|-(?!-)|/(?!\*)"""
)
#: The same for all rows of one server's statement.
_CLOCKS = frozenset(("now", "statement_timestamp", "transaction_timestamp", "age"))
_OF_ONE_TABLE = frozenset(("ctid", "xmin", "xmax", "cmin", "cmax"))
_SELECT_FIELDS = frozenset(
    ("targetList", "fromClause", "whereClause", "lockingClause", "limitOption", "op")
)


def listed(select: Node, count: int) -> tuple[Node, ...] | None:
    """The arguments of SELECT * FROM unnest(…, …), a list for each of the columns, as Django writes many rows.
    None where it is something else."""
    items = select.get("fromClause", ())
    if select.keys() - {"targetList", "fromClause", "limitOption", "op"} or len(items) != 1:
        return None
    function = items[0].get("RangeFunction", {})
    if function.keys() - {"functions"} or len(function.get("functions", ())) != 1:
        return None
    call = function["functions"][0]["List"]["items"][0].get("FuncCall", {})
    arguments = tuple(call.get("args", ()))
    names = [n["String"]["sval"] for n in call.get("funcname", ())]
    if names[-1:] != ["unnest"] or len(arguments) != count or count < 2:
        return None
    if call.keys() - {"funcname", "args", "funcformat", "location"}:
        return None
    return arguments


def split(kind: str, body: Node, read: Text) -> Split:
    """Reads a statement over one sharded table and nothing else.

    Raises:
        NotSplit: it is not the sum of its parts, or nobody can tell.
    """
    if "withClause" in body:
        raise NotSplit("WITH in it")
    if kind == "MergeStmt":
        # What type a column of VALUES has all its rows say.
        raise NotSplit("MERGE of rows of several partitions")
    if kind == "InsertStmt":
        lists = listed(body["selectStmt"]["SelectStmt"], len(body.get("cols", ())))
        return Split(_rows(body, read)) if lists is None else Split(lists=_lists(body, lists, read))
    if any(nodes(body, "SubLink")):
        raise NotSplit("a sub-select in it")
    if kind == "SelectStmt":
        _need_plain(body)
    return Split((), _list_of_keys(body, read), kind != "SelectStmt" or "lockingClause" in body)


def need_same_everywhere(body: Node) -> None:
    """What names no key, and so says the same of each row wherever it is.

    Raises:
        NotSplit: it reads a clock, or what a row has for being in one table.
    """
    if any(nodes(body, "SQLValueFunction")):
        raise NotSplit("CURRENT_DATE or the like in it")
    for call in nodes(body, "FuncCall"):
        name = call["funcname"][-1]["String"]["sval"]
        if name in _CLOCKS:
            raise NotSplit(f"{name} in it: each node has its own clock")
    for constant in nodes(body, "A_Const"):
        if tells_time(constant.get("sval", {}).get("sval")):
            raise NotSplit("a literal that may mean the time")
    for column in nodes(body, "ColumnRef"):
        if column["fields"][-1].get("String", {}).get("sval") in _OF_ONE_TABLE:
            raise NotSplit("a column in it that PostgreSQL has for each table")


def _need_plain(body: Node) -> None:
    """Rows, as they are found, of one table."""
    unknown = body.keys() - _SELECT_FIELDS
    if unknown:
        raise NotSplit(f"{', '.join(sorted(unknown))} in it")
    if len(body["fromClause"]) != 1 or "RangeVar" not in body["fromClause"][0]:
        raise NotSplit("a join in it")
    for call in nodes(body, "FuncCall"):
        name = call["funcname"][-1]["String"]["sval"]
        if name in AGGREGATES or call.keys() & {"over", "agg_within_group"}:
            raise NotSplit(f"{name} looks at several rows")


def _list_of_keys(body: Node, read: Text) -> Name | None:
    """The parameter of = ANY, where it is the only one in that place, and of a key that is all of the key."""
    found = [
        e["rexpr"]["ParamRef"]["number"]
        for e in nodes(body, "A_Expr")
        if e["kind"] == "AEXPR_OP_ANY" and "ParamRef" in e["rexpr"]
    ]
    if len(found) != 1 or sum(p["number"] == found[0] for p in nodes(body, "ParamRef")) != 1:
        return None
    name: Name = read.parameters[found[0] - 1]
    return name


def _lists(body: Node, lists: Sequence[Node], read: Text) -> tuple[Name, ...]:
    """The parameters, each of which is one list and stands nowhere else."""
    if any(nodes(body, "SubLink")):
        raise NotSplit("a sub-select in it")
    numbers = [p["number"] for p in nodes(list(lists), "ParamRef")]
    every = [p["number"] for p in nodes(body, "ParamRef")]
    if len(numbers) != len(lists) or any(every.count(n) != 1 for n in numbers):
        raise NotSplit("its lists are not parameters")
    return tuple(read.parameters[n - 1] for n in numbers)


def _rows(body: Node, read: Text) -> tuple[Row, ...]:
    if any(nodes(body, "SubLink")):
        raise NotSplit("a sub-select in it")
    lists = [r["List"]["items"] for r in body["selectStmt"]["SelectStmt"].get("valuesLists", ())]
    if len(lists) < 2 or body["selectStmt"]["SelectStmt"].keys() - {
        "valuesLists",
        "limitOption",
        "op",
    }:
        raise NotSplit("its rows are not those of VALUES")
    spans = list(_spans(read.query, len(lists), min(_starts(lists[0]))))
    found = []
    for (start, end), items in zip(spans, lists, strict=True):
        first, last = _bytes(read.query, start), _bytes(read.query, end)
        if not all(first < at < last for at in _starts(items)):
            raise NotSplit("its rows are written in an unusual way")
        numbers = {p["number"] for p in nodes(items, "ParamRef")}
        names = frozenset(read.parameters[n - 1] for n in numbers)
        found.append(Row(*read.origin(first, last), names))
    return tuple(found)


def _starts(items: Sequence[Node]) -> Iterator[int]:
    """The bytes at which something of a row stands."""
    for item in items:
        stack: list[object] = [item]
        while stack:
            node = stack.pop()
            if isinstance(node, dict):
                if isinstance(node.get("location"), int) and node["location"] >= 0:
                    yield node["location"]
                stack += node.values()
            elif isinstance(node, list):
                stack += node


def _bytes(text: str, at: int) -> int:
    return len(text[:at].encode())


def _spans(query: str, count: int, first: int) -> Iterator[tuple[int, int]]:
    """Where rows stand: characters, not bytes.

    Raises:
        NotSplit: it is not certain.
    """
    at = len(query.encode()[:first].decode())
    # A row may begin with further parentheses.
    opened = re.compile(r"(?:\(\s*)*$").search(query[:at])
    begins = opened.start() if opened else at
    if not _BEFORE_ROWS.search(query[: begins + 1]):
        raise NotSplit("its rows are written in an unusual way")
    for n in range(count):
        end = _closing(query, begins)
        yield begins, end
        following = _BETWEEN_ROWS.match(query, end)
        if (following is None) != (n == count - 1):
            raise NotSplit("its rows are written in an unusual way")
        begins = following.end() - 1 if following else end


def _closing(query: str, at: int) -> int:
    """Behind the parenthesis that closes the one there."""
    depth = 0
    while at < len(query):
        match = _TOKEN.match(query, at)
        if match is None:
            break
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        at = match.end()
        if depth == 0:
            return at
    raise NotSplit("its rows are written in an unusual way")
