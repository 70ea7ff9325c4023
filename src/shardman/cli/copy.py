"""`shardman copy`: rows out of files into a table, and back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

import shardman
from shardman.cli import output
from shardman.cli.exits import Exit
from shardman.cli.options import BIGINT_MAX, Dsn, Json, Relation
from shardman.errors import Code, UserError

app = typer.Typer()

Header = Annotated[bool, typer.Option(help="The first line of CSV has the columns' names.")]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,…",
        help="The columns of the file, where it does not name them or names them otherwise; with --to"
        " those to write.",
        show_default=False,
    ),
]
Delimiter = Annotated[str, typer.Option(metavar="C", help="Between the fields of CSV.")]
Quote = Annotated[str, typer.Option(metavar="C", help="Around fields of CSV.")]
Null = Annotated[str, typer.Option(metavar="TEXT", help="What stands for null in CSV.")]
Encoding = Annotated[str, typer.Option(metavar="NAME", help="Of CSV that is read.")]


@dataclass(frozen=True)
class _Options:
    """Of CSV, and which rows; as `Connection.copy_from` names them."""

    columns: list[str] | None
    header: bool
    delimiter: str
    quote: str
    null: str
    encoding: str
    block_bytes: int
    batch_rows: int | None
    skip: int
    rejects: Path | None
    max_rejects: int


@app.command(rich_help_panel="Use")
def copy(
    table: Relation,
    dsn: Dsn,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE…",
            help="CSV (also .gz, .bz2, .zst, .lz4), .parquet or .arrow; - reads CSV from standard input.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FILE",
            help="Write the table's rows there instead: CSV or .parquet; - writes CSV to standard output.",
            show_default=False,
        ),
    ] = None,
    columns: Columns = None,
    header: Header = True,
    delimiter: Delimiter = ",",
    quote: Quote = '"',
    null: Null = "",
    encoding: Encoding = "utf8",
    block: Annotated[
        int,
        typer.Option(
            metavar="BYTES",
            min=1 << 16,
            max=1 << 30,
            help="How much of CSV is read at once; a row must not be longer.",
        ),
    ] = 1 << 20,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="ROWS",
            min=1,
            max=BIGINT_MAX,
            help="Commit after about so many rows; all at once if not given.",
            show_default=False,
        ),
    ] = None,
    skip: Annotated[
        int, typer.Option(metavar="ROWS", min=0, max=BIGINT_MAX, help="Leave out the first rows.")
    ] = 0,
    rejects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Put rows that are wrong there, instead of ending at the first one.",
            show_default=False,
        ),
    ] = None,
    max_rejects: Annotated[
        int, typer.Option(metavar="ROWS", min=0, max=BIGINT_MAX, help="End when there are more.")
    ] = 1000,
    json: Json = False,
) -> None:
    """Load files into a table, each row straight to its node; or write the table out, with --to.

    All rows are loaded or none, but with --batch.
    """
    if bool(files) == (to is not None):
        raise typer.BadParameter("name files to load, or one to write with --to")
    # Arrow's own keeps memory that nobody uses any more.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    names = columns.split(",") if columns else None
    options = _Options(
        names, header, delimiter, quote, null, encoding, block, batch, skip, rejects, max_rejects
    )
    with _connected(dsn) as db, _words():
        done = _write(db, table, to, options) if to else _load(db, table, files or [], options)
    if json:
        output.print_json(done)
    else:
        typer.echo(_sentence(done, to), err=to == "-")


@contextmanager
def _connected(dsn: str) -> Iterator[shardman.Connection]:
    with shardman.connect(dsn, autocommit=True) as db:
        yield db


@contextmanager
def _words() -> Iterator[None]:
    """Errors as a person reads them."""
    try:
        yield
    except ImportError as error:
        raise UserError(str(error), code=Code.LOCAL_CLUSTER) from None
    except BrokenPipeError:
        # Who reads the rows has enough of them.
        raise typer.Exit(Exit.FAILED) from None
    except OSError as error:
        what = f"{error.filename or 'a file'}: {error.strerror or error}"
        raise UserError(what, code=Code.BAD_ARGUMENT) from None
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise _bad_row(error) from None


def _bad_row(error: psycopg.Error) -> UserError:
    notes = [n.removeprefix("shardman: ") for n in getattr(error, "__notes__", ())]
    hint = next((n for n in notes if n.startswith("the first ")), "Nothing was loaded")
    if not hasattr(error, "row"):
        return UserError(str(error), hint, code=Code.BAD_ARGUMENT)
    return UserError(
        notes[0], f"{hint}; --rejects FILE puts such rows aside", code=Code.BAD_ARGUMENT
    )


def _load(
    db: shardman.Connection, table: str, files: Sequence[str], options: _Options
) -> dict[str, Any]:
    sources = [sys.stdin.buffer if f == "-" else f for f in files]
    with _bar() as progress:
        task = progress.add_task(table, total=None, rows="")

        def tell(now: Any) -> None:
            progress.update(task, completed=now.bytes, total=now.size, rows=f"{now.rows:,} rows")

        loaded = db.copy_from(table, *sources, **vars(options), progress=tell)
    return {
        "rows": loaded.rows,
        "rejected": loaded.rejected,
        "through_one_node_because": loaded.through or None,
    }


def _write(db: shardman.Connection, table: str, to: str, options: _Options) -> dict[str, Any]:
    target: Any = sys.stdout.buffer if to == "-" else to
    with _bar() as progress:
        task = progress.add_task(table, total=None, rows="")

        def tell(now: Any) -> None:
            progress.update(task, completed=now.bytes, rows=f"{now.rows:,} rows")

        done = db.copy_to(
            table, target, columns=options.columns, header=options.header, progress=tell
        )
    return {"rows": done.rows, "bytes": done.bytes}


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]}"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=output.stderr(),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _sentence(done: dict[str, Any], to: str | None) -> str:
    if to is not None:
        return f"Wrote {done['rows']} rows."
    said = f"Loaded {done['rows']} rows."
    if done["rejected"]:
        said += f" {done['rejected']} were put aside."
    if done["through_one_node_because"]:
        said += f" They went through one node: {done['through_one_node_because']}."
    return said
