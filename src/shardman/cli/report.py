"""`shardman report`: a bundle for a bug report."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import time
from pathlib import Path
from typing import Annotated

import typer

from shardman.cli import output
from shardman.cli.options import Dsn
from shardman.errors import Code, UserError
from shardman.nodes.report import report as gather

app = typer.Typer()


@app.command(rich_help_panel="Look")
def report(
    dsn: Dsn,
    file: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="Where to write it; must not be there.")
    ] = Path("shardman-report.tar.gz"),
) -> None:
    """Write what helps to look into a bug into an archive, without passwords or rows.

    Only its owner can read it. Read it before you give it away.
    """
    try:
        made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UserError(
            f"cannot use {file}: {error.strerror}",
            "Name another file with --output",
            code=Code.BAD_ARGUMENT,
        ) from None
    try:
        readme, documents = asyncio.run(gather(dsn))
    except BaseException:
        os.close(made)
        file.unlink()
        raise
    with os.fdopen(made, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
        _add(archive, "README.txt", readme)
        for name, document in documents.items():
            _add(archive, f"{name}.json", output.as_json(document))
    typer.echo(
        f"Read {file} before you give it away: passwords and rows are left out, names are not."
    )


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    entry = tarfile.TarInfo(f"shardman-report/{name}")
    entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(data))
