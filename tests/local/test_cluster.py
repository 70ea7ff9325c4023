"""Clusters of bare servers: everything but shardman itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from shardman.errors import UserError
from shardman.local import LocalCluster, process
from shardman.testing import Cluster
from shardman.testing.plugin import ClusterFactory


@pytest.fixture(scope="module")
def bare(module_cluster_factory: ClusterFactory) -> Cluster:
    return module_cluster_factory(workers=2, bare=True)


@pytest.fixture
def directory(bare: Cluster) -> Path:
    """Somewhere that the servers' account may enter, unlike pytest's own directories."""
    return bare.local.directory.parent / "another"


def shardman(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "shardman", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def test_every_server_is_one_of_its_own(bare: Cluster) -> None:
    query = "select system_identifier from pg_control_system()"
    assert len({bare.value(node, query) for node in (0, 1, 2)}) == 3


def test_another_process_can_go_on(bare: Cluster) -> None:
    directory = bare.local.directory
    assert shardman("local", "stop-node", "--dir", directory, "2").returncode == 0
    with pytest.raises(psycopg.OperationalError):
        bare.sql(2, "select 1")
    assert shardman("local", "start-node", "--dir", directory, "2").returncode == 0
    assert bare.value(2, "select 1") == 1
    done = shardman("local", "stop-node", "--dir", directory, "0", "--mode", "immediate")
    assert done.returncode == 0
    bare.start_node(0)
    assert bare.value(0, "select 1") == 1


def test_an_error_is_two_lines_and_no_traceback(bare: Cluster) -> None:
    done = shardman("local", "stop-node", "--dir", bare.local.directory, "7")
    assert done.returncode == 1
    assert "There is no node 7" in done.stderr
    assert "The workers are 1, 2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_more(bare: Cluster) -> None:
    dsn = bare.add_server()
    with psycopg.connect(dsn) as connection:
        connection.execute("select 1")
    assert bare.worker_dsns[3] == dsn


def test_two_commands_on_one_directory_do_not_mix(bare: Cluster) -> None:
    with bare.local.locked():
        done = shardman("local", "start-node", "--dir", bare.local.directory, "1")
    assert done.returncode == 1
    assert "Another command is at work" in done.stderr


def test_side_by_side_down_again_and_wiped(directory: Path, bare: Cluster) -> None:
    cluster = LocalCluster.create(directory, 1, fsync=False)
    try:
        cluster.start_servers()
        ports = {each.port for each in (*cluster.servers, *bare.local.servers)}
        assert len(ports) == len(cluster.servers) + len(bare.local.servers)
        dsns = cluster.worker_dsns
        cluster.down()
        assert all(server.gone() for server in cluster.servers)
        again = LocalCluster.open(directory)
        again.start_servers()
        assert again.worker_dsns == dsns
    finally:
        cluster.down(wipe=True)
    assert not directory.exists()
    assert not any(process.living_in(server.data) for server in cluster.servers)
    assert bare.value(1, "select 1") == 1


def test_wiping_spares_the_files_of_others(directory: Path) -> None:
    cluster = LocalCluster.create(directory, 0)
    (directory / "notes.txt").write_text("mine")
    cluster.down(wipe=True)
    assert [path.name for path in directory.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="is not empty"):
        LocalCluster.create(directory, 0)
    (directory / "notes.txt").unlink()
    directory.rmdir()


def test_no_cluster_there(directory: Path) -> None:
    with pytest.raises(UserError, match="There is no local cluster"):
        LocalCluster.open(directory)


def test_a_failed_start_stops_the_others(directory: Path) -> None:
    cluster = LocalCluster.create(directory, 1, fsync=False)
    try:
        cluster.servers[1].settings = {"shared_buffers": "plenty"}
        with pytest.raises(UserError, match=r"worker-1 does not start: .*shared_buffers"):
            cluster.up()
        assert all(server.gone() for server in cluster.servers)
    finally:
        cluster.down(wipe=True)


def test_processes_outlive_the_command_that_started_them(bare: Cluster) -> None:
    """Each in a session of its own: a Ctrl-C at the terminal does not reach them."""
    for server in bare.local.servers:
        pid = server.pid()
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)


def test_the_description_is_enough_to_connect(bare: Cluster) -> None:
    bare.local.describe()
    described = json.loads((bare.local.directory / "cluster.json").read_text())
    assert [worker["id"] for worker in described["workers"]] == list(bare.worker_dsns)
    for dsn in (described["lord"]["dsn"], *(each["dsn"] for each in described["workers"])):
        with psycopg.connect(dsn) as connection:
            connection.execute("select 1")
