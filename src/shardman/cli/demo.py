"""`shardman demo`: everything in half a minute."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from shardman.cli.exits import Exit
from shardman.demo import flights
from shardman.demo.screen import Screen
from shardman.demo.story import Demo
from shardman.local import LocalCluster

app = typer.Typer()


@app.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the cluster running, to look around.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", help="Where to put the cluster; a temporary directory.", show_default=False
        ),
    ] = None,
    pg_bin: Annotated[
        Path | None,
        typer.Option("--pg-bin", help="The directory of the server programs.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(min=2, max=8, help="How many to begin with.")] = 3,
) -> None:
    """Shard 336,776 real flights and move them about while clients write.

    Starts a cluster of its own, checks every row and every write, and stops it again. The exit code
    is 0 when every check held.
    """
    begun = time.monotonic()
    screen = Screen()
    screen.title(
        "pg_shardman: several PostgreSQL servers, one database",
        "with the 336,776 flights that left New York City in 2013",
    )
    data = flights.read()
    with _cluster(directory, pg_bin, workers, keep=keep, screen=screen) as cluster:
        story = Demo(cluster, data, screen)
        good = story.tell()
        seconds = time.monotonic() - begun
        words = f"{'Every check held' if good else 'NOT every check held'}. {seconds:.0f} s in all."
        if keep:
            _stay(screen, cluster, good, words, story.example_move())
        else:
            _leave(screen, good, words)
    raise typer.Exit(Exit.OK if good else Exit.FAILED)


@contextmanager
def _cluster(
    directory: Path | None, pg_bin: Path | None, workers: int, *, keep: bool, screen: Screen
) -> Iterator[LocalCluster]:
    """A running cluster. Whatever happens in the block, no process and no file is left; only a
    story told to its end leaves them, where the user asked for it."""
    path = Path(tempfile.mkdtemp(prefix="shardman-demo-")) if directory is None else directory
    with _signals():
        try:
            cluster = LocalCluster.create(path, workers, pg_bin=pg_bin)
        except BaseException:
            if directory is None:
                shutil.rmtree(path, ignore_errors=True)
            raise
        told = False
        with cluster.locked():
            try:
                _start(cluster, workers, screen)
                yield cluster
                told = True
            finally:
                if not (keep and told):
                    _stop(cluster, screen)


def _start(cluster: LocalCluster, workers: int, screen: Screen) -> None:
    screen.chapter("A cluster on this machine")
    begun = time.monotonic()
    with screen.working(f"initdb and start of {workers + 1} PostgreSQL servers"):
        cluster.up()
    screen.ok(
        f"one lord and {workers} workers, each a PostgreSQL {cluster.state.version} of its own,"
        f" ready in {time.monotonic() - begun:.1f} s"
    )


def _stop(cluster: LocalCluster, screen: Screen) -> None:
    """Ends every process and removes every file; a second Ctrl-C must not leave half of it."""
    before = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with screen.working("stopping the servers"):
            cluster.down(wipe=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM, and the end of the terminal, stop us like Ctrl-C: with the servers."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(screen: Screen, good: bool, words: str) -> None:
    screen.end(
        good,
        words,
        [
            ("shardman demo --keep", "the same, and the cluster stays up for you"),
            ("shardman local up --dir DIR", "an empty cluster of your own"),
            ("docs/tour.md", "how it works, on one page"),
        ],
        "The cluster is stopped and removed. Try next:",
    )


def _stay(screen: Screen, cluster: LocalCluster, good: bool, words: str, move: str) -> None:
    screen.end(
        good,
        words,
        [
            ("shardman status --partitions", "nodes, tables, what is wrong"),
            (f"shardman move-part {move} --plan", "the steps; without --plan they are done"),
            ("shardman exec 'select count(*) from flights'", "on every node"),
            ('psql "$SHARDMAN_DSN"', "any client, any node"),
        ],
        "The cluster stays up. Try next, after the export below:",
    )
    screen.console.print()
    for name, dsn in {"lord": cluster.lord_dsn, **_named(cluster)}.items():
        screen.copyable(f"{name:<9} {cluster.shown(dsn)}")
    screen.console.print()
    screen.copyable(f'export SHARDMAN_DSN="{cluster.shown(cluster.worker_dsns[1])}"')
    screen.copyable(
        f"shardman local down --dir {cluster.directory} --wipe   # stops and removes it"
    )


def _named(cluster: LocalCluster) -> dict[str, str]:
    return {f"worker {node}": dsn for node, dsn in cluster.worker_dsns.items()}
