"""`shardman doctor`: whether servers are good nodes, before and after there is a cluster."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer
from rich.text import Text

from shardman import units
from shardman.cli import output
from shardman.cli.exits import Exit
from shardman.cli.options import Json, read_dsn
from shardman.nodes.doctor import Diagnosis, Examination, Level, examine

app = typer.Typer()

_COLOURS = {Level.ERROR: "bold red", Level.WARNING: "yellow", Level.NOTE: "cyan"}


@app.command(rich_help_panel="Look")
def doctor(
    dsns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DSN…",
            help="Servers that are to be nodes, or any node of a cluster, which stands for all of them;"
            " - reads one from a line of the standard input. Without any: SHARDMAN_DSN.",
            show_default=False,
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="How many nodes there are to be.", show_default=False)
    ] = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1, help="Partitions of the largest table that is to be.", show_default=False
        ),
    ] = None,
    sessions: Annotated[
        int, typer.Option(min=0, help="Sessions of clients at the same time.", show_default=False)
    ] = 0,
    json: Json = False,
) -> None:
    """Look at servers and the ways between them, and say what is wrong and the statement that mends it.

    Nothing is changed. The exit code is 0 when nothing but notes is found, else 3.
    """
    given = dsns or [d for d in (os.environ.get("SHARDMAN_DSN"),) if d]
    if not given:
        raise typer.BadParameter("name a server, or set SHARDMAN_DSN", param_hint="DSN")
    seen = asyncio.run(
        examine([read_dsn(d) for d in given], nodes=nodes, partitions=partitions, sessions=sessions)
    )
    if json:
        output.print_json({**vars(seen), "healthy": seen.healthy})
    else:
        _print(seen)
    raise typer.Exit(Exit.OK if seen.healthy else Exit.UNHEALTHY)


def _print(seen: Examination) -> None:
    console = output.stdout()
    rows = [
        (
            s["name"],
            f"{s['version'] // 10000}.{s['version'] % 10000}",
            f"{s['latency'] * 1000:.1f} ms",
            units.size(s["bytes"]),
            units.size(s["free"]),
            s["encrypted"],
        )
        for s in seen.servers
    ]
    columns = ("server", "version", "from here", "size", "free", "encrypted")
    console.print(output.table(columns, rows))
    # What is so on several servers is said once.
    alike: dict[tuple[str, ...], list[Diagnosis]] = {}
    for finding in seen.findings:
        alike.setdefault((finding.level, finding.what, finding.mend, finding.hint), []).append(
            finding
        )
    for group in alike.values():
        _print_finding(group[0], ", ".join(f.subject for f in group))
    counts = [(level, sum(f.level is level for f in seen.findings)) for level in Level]
    told = ", ".join(f"{n} {level}{'s' if n > 1 else ''}" for level, n in counts if n)
    console.print(Text(told or "Nothing is wrong.", "" if told else "green"))


def _print_finding(finding: Diagnosis, where: str) -> None:
    console = output.stdout()
    said = Text(f"{finding.level}: ", _COLOURS[finding.level])
    console.print(said.append(f"{where}: {finding.what}", "default"))
    if finding.mend:
        console.print(Text(f"    {finding.mend};"))
    if finding.hint:
        console.print(Text(f"    {finding.hint}"))
