"""`shardman local`: a cluster on this machine, for development and for trying things out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shardman.errors import Code, UserError
from shardman.local import LocalCluster
from shardman.local.server import StopMode

app = typer.Typer(no_args_is_help=True, help="A cluster on this machine: servers and a shardlord.")

_DEFAULT_WORKERS = 3

Directory = Annotated[
    Path, typer.Option("--dir", help="The directory the cluster lives in.", show_default=False)
]
NodeId = Annotated[
    int, typer.Argument(metavar="ID", help="A worker's node id; 0 is the lord's server.", min=0)
]


@app.command()
def up(
    directory: Directory,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=64,
            help=f"How many workers; {_DEFAULT_WORKERS}, or as many as there are.",
            show_default=False,
        ),
    ] = None,
    pg_bin: Annotated[
        Path | None,
        typer.Option("--pg-bin", help="The directory of the server programs.", show_default=False),
    ] = None,
    no_fsync: Annotated[
        bool,
        typer.Option(
            "--no-fsync",
            help="Faster; a crash of the whole machine may destroy the data. For tests.",
            envvar="SHARDMAN_LOCAL_NO_FSYNC",
        ),
    ] = False,
) -> None:
    """Start a cluster, making it if it is not there; returns once every worker is added."""
    if LocalCluster.exists(directory):
        cluster = LocalCluster.open(directory)
        with cluster.locked():
            cluster.use_programs(pg_bin)
            _grow(cluster, workers)
            cluster.up()
    else:
        count = _DEFAULT_WORKERS if workers is None else workers
        cluster = LocalCluster.create(directory, count, pg_bin=pg_bin, fsync=not no_fsync)
        with cluster.locked():
            cluster.up()
    _print_nodes(cluster)


@app.command()
def down(
    directory: Directory,
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove all its files as well.")] = False,
) -> None:
    """Stop a cluster: no process of it is left."""
    cluster = LocalCluster.open(directory)
    with cluster.locked():
        cluster.down(wipe=wipe)


@app.command()
def stop_node(
    directory: Directory,
    node_id: NodeId,
    mode: Annotated[StopMode, typer.Option(help="How.")] = StopMode.FAST,
) -> None:
    """Stop the server of one node."""
    cluster = LocalCluster.open(directory)
    with cluster.locked():
        cluster.stop_node(node_id, mode)


@app.command()
def start_node(directory: Directory, node_id: NodeId) -> None:
    """Start the server of one node; returns once it answers."""
    cluster = LocalCluster.open(directory)
    with cluster.locked():
        cluster.start_node(node_id)


@app.command()
def stop_lord(
    directory: Directory,
    kill: Annotated[bool, typer.Option("--kill", help="With SIGKILL.")] = False,
) -> None:
    """Stop the shardlord process; the lord's server keeps running."""
    cluster = LocalCluster.open(directory)
    with cluster.locked():
        cluster.stop_lord(kill=kill)


@app.command()
def start_lord(directory: Directory) -> None:
    """Start the shardlord process."""
    cluster = LocalCluster.open(directory)
    with cluster.locked():
        cluster.start_lord()


def _grow(cluster: LocalCluster, workers: int | None) -> None:
    """More workers than before are made; fewer would need a decision that is not ours."""
    existing = len(cluster.servers) - 1
    if workers is None or workers == existing:
        return
    if workers < existing:
        raise UserError(
            f"The cluster in {cluster.directory} has {existing} workers, not {workers}",
            "Remove nodes with shardman.rm_node, or give no --workers",
            code=Code.LOCAL_CLUSTER,
        )
    cluster.add_servers(workers - existing)


def _print_nodes(cluster: LocalCluster) -> None:
    typer.echo(f"lord      {cluster.shown(cluster.lord_dsn)}")
    for node_id, dsn in cluster.worker_dsns.items():
        typer.echo(f"worker {node_id:<2} {cluster.shown(dsn)}")
