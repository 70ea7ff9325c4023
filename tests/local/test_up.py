"""`shardman local up` and `down`: a whole cluster, from the command line."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shardman.local import LocalCluster, process
from shardman.pg.conninfo import without_secrets
from shardman.testing.waiting import eventually

pytestmark = pytest.mark.server


def shardman(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "shardman", "local", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def done(*arguments: str | Path) -> str:
    ran = shardman(*arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="shardman-test-") as name:
        Path(name).chmod(0o755)
        place = Path(name) / "cluster"
        try:
            yield place
        finally:
            if LocalCluster.exists(place):
                LocalCluster.open(place).down(wipe=True)


def nodes(directory: Path) -> dict[int, str]:
    described = json.loads((directory / "cluster.json").read_text())
    return {0: described["lord"]["dsn"]} | {
        each["id"]: each["dsn"] for each in described["workers"]
    }


def my_id(dsn: str) -> int:
    with psycopg.connect(dsn) as node:
        row = node.execute("select shardman.my_id()").fetchone()
        assert row is not None
        return int(row[0])


def test_up_is_ready_when_it_returns(directory: Path) -> None:
    done("up", "--dir", directory, "--no-fsync")
    assert len(nodes(directory)) == 4
    assert {node_id: my_id(dsn) for node_id, dsn in nodes(directory).items()} == {
        node_id: node_id for node_id in nodes(directory)
    }


def test_a_password_is_in_files_of_their_owner_alone(directory: Path) -> None:
    cluster = LocalCluster.open(directory)
    password, pid = cluster.state.password, cluster.lord_pid
    assert password is not None and len(password) >= 32
    for file in ("cluster.json", "local.json", "pgpass"):
        assert (directory / file).stat().st_mode & 0o777 == 0o600
    assert password not in done("up", "--dir", directory)
    assert password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    for dsn in nodes(directory).values():
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(without_secrets(dsn), passfile="/dev/null")
        assert my_id(cluster.shown(dsn)) == my_id(dsn)
    assert not list(directory.glob("*.password"))


@pytest.mark.parametrize("way", ["argument", "stdin"])
def test_a_shardlord_shows_no_password(directory: Path, way: str) -> None:
    dsn = nodes(directory)[0]
    argv = [sys.executable, "-P", "-m", "shardman", "lord", "-" if way == "stdin" else dsn]
    second = subprocess.Popen(argv, stdin=subprocess.PIPE, text=True)
    try:
        assert second.stdin is not None
        second.stdin.write(dsn + "\n")
        second.stdin.close()
        with psycopg.connect(dsn, autocommit=True) as lord:
            eventually(
                "it works with the lord's database",
                lambda: lord.execute(
                    "select from pg_stat_activity where application_name = 'shardman standby'"
                ).fetchone(),
                until=lambda found: found is not None,
                seconds=30,
            )
        assert b"password" not in Path(f"/proc/{second.pid}/cmdline").read_bytes()
    finally:
        second.terminate()
        assert second.wait(20) == 0


def test_up_again_changes_nothing(directory: Path) -> None:
    before, pid = nodes(directory), LocalCluster.open(directory).lord_pid
    done("up", "--dir", directory)
    assert nodes(directory) == before
    assert LocalCluster.open(directory).lord_pid == pid


def test_the_shardlord_stops_and_starts(directory: Path) -> None:
    first = LocalCluster.open(directory).lord_pid
    assert first is not None
    done("stop-lord", "--dir", directory)
    assert not process.alive(first)
    done("start-lord", "--dir", directory)
    second = LocalCluster.open(directory).lord_pid
    assert second not in (None, first)
    done("stop-lord", "--dir", directory, "--kill")
    done("start-lord", "--dir", directory)
    assert LocalCluster.open(directory).lord_pid not in (None, first, second)


def test_down_and_up_is_the_same_cluster(directory: Path) -> None:
    before = nodes(directory)
    done("down", "--dir", directory)
    cluster = LocalCluster.open(directory)
    assert cluster.lord_pid is None
    assert all(server.gone() for server in cluster.servers)
    done("up", "--dir", directory)
    assert nodes(directory) == before
    assert {my_id(dsn) for dsn in before.values()} == set(before)


def test_one_worker_more(directory: Path) -> None:
    before = nodes(directory)
    done("up", "--dir", directory, "--workers", "4")
    assert len(nodes(directory)) == len(before) + 1
    fewer = shardman("up", "--dir", directory, "--workers", "1")
    assert fewer.returncode == 1
    assert "has 4 workers, not 1" in fewer.stderr


def test_wipe_leaves_nothing(directory: Path) -> None:
    cluster = LocalCluster.open(directory)
    pid = cluster.lord_pid
    assert pid is not None
    done("down", "--dir", directory, "--wipe")
    assert not directory.exists()
    assert not process.alive(pid)
    assert all(server.gone() for server in cluster.servers)


def test_a_worker_that_cannot_be_added_stops_nobody() -> None:
    with tempfile.TemporaryDirectory(prefix="shardman-test-") as name:
        Path(name).chmod(0o755)
        place = Path(name) / "cluster"
        done("up", "--dir", place, "--workers", "1", "--no-fsync")
        try:
            with psycopg.connect(nodes(place)[1], autocommit=True) as node:
                node.execute("create type mood as enum ('good')")
                node.execute("create table t (id int primary key, m mood)")
                sharded = node.execute("select shardman.create_hash_partitions(1, 't', 'id', 2)")
                node.execute("select shardman.cmd_wait(%s)", sharded.fetchone())
            with psycopg.connect(nodes(place)[0], autocommit=True) as lord:
                # Nobody makes its type elsewhere.
                lord.execute("insert into shardman.settings values ('spread_ddl', 'none')")
            for _ in range(2):
                refused = shardman("up", "--dir", place, "--workers", "2")
                assert refused.returncode == 1
                assert "mood" in refused.stderr
                assert {my_id(dsn) for dsn in nodes(place).values()} == {0, 1}
        finally:
            LocalCluster.open(place).down(wipe=True)
