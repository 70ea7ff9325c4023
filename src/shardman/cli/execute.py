"""`shardman exec`: a statement on every node."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import psycopg
import typer
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader
from rich.text import Text

from shardman.cli import output
from shardman.cli.exits import Exit
from shardman.cli.options import Dsn, Json
from shardman.errors import UserError
from shardman.pg.reach import Connection, NodeError, Reach, in_words

app = typer.Typer()

_NO_COPY = "COPY from or to the client does not work on several nodes at once; use psql"


@dataclass(frozen=True)
class Answer:
    """What the statement gave on one node."""

    node: int
    ok: bool
    message: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()


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
        answers = [
            Answer(node, ok=False, message=answer.problem)
            if isinstance(answer, NodeError)
            else answer
            for node, answer in reach.everywhere(
                lambda node, session: _execute(node, session, text), wanted
            ).items()
        ]
    if json:
        output.print_json([_document(a) for a in answers])
    else:
        _print(answers)
    raise typer.Exit(Exit.OK if all(a.ok for a in answers) else Exit.FAILED)


def _wanted(reach: Reach, nodes: str | None, *, workers: bool) -> list[int]:
    members = {n.id: n for n in reach.members}
    if nodes is None:
        return [i for i, n in members.items() if not workers or n.status is not None]
    try:
        wanted = [int(word) for word in nodes.split(",") if word.strip()]
    except ValueError:
        raise typer.BadParameter("give node ids with commas between, e.g. 1,2") from None
    for node in wanted:
        if node not in members:
            known = ", ".join(map(str, members))
            raise UserError(f"there is no node {node}", f"The nodes are: {known}")
    return wanted


def _execute(node: int, session: Connection, text: str) -> Answer:
    """The last result of the statement, as psql would show it: what cannot be a value in Python
    (an infinite timestamp) is text, for the statement has been carried out."""
    with session.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        cursor.adapters.register_loader("timestamptz", TextLoader)
        for kind in ("timestamp", "date", "timetz", "time", "interval"):
            cursor.adapters.register_loader(kind, TextLoader)
        try:
            cursor.execute(text.encode())
        except psycopg.Error as error:
            # The server waits for rows, or for somebody to take them.
            copies = session.info.transaction_status == TransactionStatus.ACTIVE
            session.close()
            return Answer(node, ok=False, message=_NO_COPY if copies else in_words(error).what)
        while cursor.nextset():
            pass
        message = cursor.statusmessage or ""
        if cursor.description is None:
            return Answer(node, ok=True, message=message)
        columns = tuple(c.name for c in cursor.description)
        return Answer(node, True, message, columns, tuple(cursor.fetchall()))


def _document(answer: Answer) -> dict[str, Any]:
    # A name may stand twice.
    names = [
        name if name not in answer.columns[:n] else f"{name}_{n + 1}"
        for n, name in enumerate(answer.columns)
    ]
    rows = [dict(zip(names, row, strict=True)) for row in answer.rows]
    return {"node": answer.node, "ok": answer.ok, "message": answer.message, "rows": rows}


def _print(answers: Sequence[Answer]) -> None:
    """One table when all nodes gave the same columns; what has no rows or failed below it."""
    console = output.stdout()
    shapes = {a.columns for a in answers if a.columns}
    for columns in shapes:
        rows = [(a.node, *row) for a in answers if a.columns == columns for row in a.rows]
        console.print(output.table(("node", *columns), rows))
    for answer in answers:
        if not answer.ok:
            console.print(Text(f"node {answer.node}: error: {answer.message}", "red"))
        elif not answer.columns:
            console.print(Text(f"node {answer.node}: {answer.message}"))
