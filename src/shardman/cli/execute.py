"""`shardman exec`: a statement on every node."""

from __future__ import annotations

import json as jsons
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import count
from typing import Annotated, Any

import psycopg
import typer
from psycopg.postgres import types
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult
from rich.text import Text

from shardman.cli import output
from shardman.cli.exits import Exit
from shardman.cli.options import Dsn, Json
from shardman.errors import Code, UserError
from shardman.nodes.reach import NodeError, Reach
from shardman.pg.connection import SyncConnection
from shardman.pg.wording import in_words

app = typer.Typer()

Row = tuple[str | None, ...]
_NUMBERS: dict[int, Callable[[str], Any]] = {
    **{types[name].oid: int for name in ("int2", "int4", "int8", "oid")},
    **{types[name].oid: float for name in ("float4", "float8")},
    types["numeric"].oid: Decimal,
}
#: Of the types that JSON knows; all else is text there as well.
_VALUES: dict[int, Callable[[str], Any]] = {
    **_NUMBERS,
    types["bool"].oid: lambda text: text == "t",
    types["json"].oid: jsons.loads,
    types["jsonb"].oid: jsons.loads,
}


@dataclass(frozen=True)
class Answer:
    """What the statement gave on one node: values as the server writes them, and their types' oids.

    There is a PostgreSQL value for everything, but not a Python one: infinity, years before Christ.
    """

    node: int
    ok: bool
    message: str
    hint: str = ""
    code: Code | None = None
    columns: tuple[str, ...] = ()
    types: tuple[int, ...] = ()
    rows: tuple[Row, ...] = ()


@app.command("exec", rich_help_panel="Look")
def exec_(
    statement: Annotated[
        str,
        typer.Argument(
            metavar="SQL", help="Any SQL; - reads it from standard input.", show_default=False
        ),
    ],
    dsn: Dsn,
    nodes: Annotated[
        str | None,
        typer.Option(
            metavar="IDS", help="Only on these, e.g. 1,2; all if not given.", show_default=False
        ),
    ] = None,
    workers: Annotated[bool, typer.Option("--workers", help="Not on the lord.")] = False,
    json: Json = False,
) -> None:
    """Run a statement on every node, each in a transaction of its own.

    The exit code is 1 when it failed on any of them.
    """
    text = sys.stdin.read() if statement == "-" else statement
    with Reach(dsn) as reach:
        wanted = _wanted(reach, nodes, workers=workers)
        answers = _answers(reach, text, _where(reach, text, wanted) if nodes is None else wanted)
    if json:
        output.print_json([_document(a) for a in answers])
    else:
        _print(answers)
    raise typer.Exit(Exit.OK if all(a.ok for a in answers) else Exit.FAILED)


def _answers(reach: Reach, text: str, nodes: list[int]) -> list[Answer]:
    alone = len(nodes) == 1
    return [
        Answer(node, ok=False, message=answer.problem, hint=answer.hint, code=answer.code)
        if isinstance(answer, NodeError)
        else answer
        for node, answer in reach.everywhere(
            lambda node, session: _execute(node, session, text, spread=alone), nodes
        ).items()
    ]


def _where(reach: Reach, text: str, wanted: list[int]) -> list[int]:
    """The nodes to send a statement to: one, where that one hands it on to all others."""

    def spreads(_: int, session: SyncConnection) -> bool:
        row = session.execute("select shardman.is_spread(%s) as it", (text,)).fetchone()
        return bool(row and row["it"])

    for node, answer in reach.everywhere(spreads, wanted).items():
        if answer is True:
            return [node]
    return wanted


def _wanted(reach: Reach, nodes: str | None, *, workers: bool) -> list[int]:
    members = {n.id: n for n in reach.members}
    if nodes is None:
        return [i for i, n in members.items() if not workers or n.status is not None]
    try:
        wanted = [int(word) for word in nodes.split(",") if word.strip()]
    except ValueError:
        raise typer.BadParameter("give node ids with commas between, e.g. 1,2") from None
    if not wanted:
        raise typer.BadParameter("no node is named; give node ids with commas between, e.g. 1,2")
    for node in wanted:
        if node not in members:
            known = ", ".join(map(str, members))
            raise UserError(
                f"there is no node {node}", f"The nodes are: {known}", code=Code.NO_SUCH_NODE
            )
    return wanted


def _execute(node: int, session: SyncConnection, text: str, *, spread: bool) -> Answer:
    """The last result of the statement, as psql would show it. DDL of sharded tables is spread by the node
    only where no other is sent the same."""
    # Dates are read and written as the server's owner has chosen, not as our own sessions do.
    session.execute("reset all")
    session.execute("select set_config('shardman.ddl', %s, false)", ("" if spread else "here",))
    try:
        sent = text.encode(session.info.encoding)
    except UnicodeEncodeError:
        what = f"the statement has characters that {session.info.encoding} does not have"
        hint = "Set client_encoding of the role or the database to UTF8"
        return Answer(node, False, what, hint, Code.BAD_ARGUMENT)
    with session.cursor() as cursor:
        try:
            cursor.execute(sent)
        except psycopg.Error as error:
            if session.info.transaction_status == TransactionStatus.ACTIVE:
                # The server waits for rows, or sends some: there is no other way out.
                session.close()
                return Answer(node, False, _NO_COPY.what, _NO_COPY.hint, _NO_COPY.code)
            said = in_words(error)
            return Answer(node, False, said.what, said.hint, said.code)
        while cursor.nextset():
            pass
        message, result = cursor.statusmessage or "", cursor.pgresult
        if cursor.description is None or result is None:
            return Answer(node, ok=True, message=message)
        return _rows(Answer(node, ok=True, message=message), result, session.info.encoding)


_NO_COPY = UserError(
    "COPY cannot send rows to shardman exec, nor read them from it",
    "Use psql for that, or COPY with a file or a program of the server",
    code=Code.BAD_ARGUMENT,
)


def _rows(answer: Answer, result: PGresult, encoding: str) -> Answer:
    def text(value: bytes | None) -> str | None:
        return None if value is None else value.decode(encoding, "backslashreplace")

    over = range(result.nfields)
    return replace(
        answer,
        columns=tuple(text(result.fname(n)) or "" for n in over),
        types=tuple(result.ftype(n) for n in over),
        rows=tuple(
            tuple(text(result.get_value(row, n)) for n in over) for row in range(result.ntuples)
        ),
    )


def _document(answer: Answer) -> dict[str, Any]:
    names = list(_different(answer.columns))
    rows = [dict(zip(names, _values(answer, row), strict=True)) for row in answer.rows]
    document = {"node": answer.node, "ok": answer.ok, "message": answer.message, "rows": rows}
    more = {"hint": answer.hint, "error_code": answer.code}
    return document | {name: value for name, value in more.items() if value}


def _different(columns: Sequence[str]) -> Iterator[str]:
    """Names of columns, each once: the second a is called a_2."""
    used = set(columns)
    seen: set[str] = set()
    for name in columns:
        new = name
        if name in seen:
            new = next(n for k in count(2) if (n := f"{name}_{k}") not in used)
        seen.add(new)
        used.add(new)
        yield new


def _values(answer: Answer, row: Row) -> Iterator[Any]:
    for kind, text in zip(answer.types, row, strict=True):
        try:
            yield None if text is None else _VALUES.get(kind, str)(text)
        except ValueError:
            # A number in JSON that is too long for Python.
            yield text


def _print(answers: Sequence[Answer]) -> None:
    """One table when all nodes gave the same columns; what has no rows or failed below it."""
    console = output.stdout()
    shapes = dict.fromkeys(a.columns for a in answers if a.columns)
    for columns in shapes:
        rows = [
            (a.node, *_cells(a, row)) for a in answers if a.columns == columns for row in a.rows
        ]
        console.print(output.table(("node", *columns), rows))
    for answer in answers:
        if not answer.ok:
            console.print(Text(f"node {answer.node}: error: {answer.message}", "red"))
            if answer.hint:
                console.print(Text(f"  {answer.hint}"))
        elif not answer.columns:
            console.print(Text(f"node {answer.node}: {answer.message}"))


def _cells(answer: Answer, row: Row) -> Iterator[Text | None]:
    """Numbers to the right."""
    for kind, text in zip(answer.types, row, strict=True):
        yield None if text is None else Text(text, justify="right" if kind in _NUMBERS else None)
