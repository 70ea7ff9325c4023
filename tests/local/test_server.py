"""One server: make, start, stop, kill."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shardman.errors import UserError
from shardman.local import Programs, Server, ports, process
from shardman.local.account import account_for
from shardman.local.programs import make_usable
from shardman.local.server import StopMode


def make(programs: Programs, place: Path, name: str) -> Server:
    return Server(
        name=name,
        data=place / name,
        log=place / f"{name}.log",
        programs=programs,
        account=account_for(place),
        fsync=False,
    )


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="shardman-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def programs(pg_programs: Programs, place: Path) -> Programs:
    """As a cluster does it: root's own may be out of the account's reach."""
    return make_usable(pg_programs, account_for(place / "not there yet"), place)


@pytest.fixture(scope="module")
def made(programs: Programs, place: Path) -> Iterator[Server]:
    server = make(programs, place, "one")
    server.create()
    yield server
    server.kill()


@pytest.fixture
def server(made: Server) -> Server:
    made.start()
    return made


def ask(server: Server, query: str) -> str:
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return str(row[0])


def test_it_can_do_what_sharding_needs(server: Server) -> None:
    settings = dict.fromkeys(("wal_level", "max_prepared_transactions", "jit", "port"), "")
    for name in settings:
        settings[name] = ask(server, f"show {name}")
    assert settings == {
        "wal_level": "logical",
        "max_prepared_transactions": "200",
        "jit": "off",
        "port": str(server.port),
    }
    assert ask(server, "show server_encoding") == "UTF8"
    with psycopg.connect(server.dsn) as connection:
        connection.execute("create extension postgres_fdw")
        connection.rollback()


def test_other_drivers_can_log_in(server: Server) -> None:
    """Java's refuses a server's key of fewer than 4096 rounds; here one of a password that somebody makes."""
    with psycopg.connect(server.dsn) as connection:
        connection.execute("create role somebody password 'x'")
        made = connection.execute(
            "select rolpassword from pg_authid where rolname = 'somebody'"
        ).fetchone()
        connection.rollback()
    assert made is not None and made[0].startswith("SCRAM-SHA-256$4096:")


def test_fsync_is_on_unless_told_otherwise(server: Server, pg_programs: Programs) -> None:
    assert ask(server, "show fsync") == "off"
    assert Server("x", Path("/x"), Path("/x.log"), pg_programs, server.account).fsync


def test_start_and_stop_twice_is_the_same_as_once(server: Server) -> None:
    pid = server.pid()
    server.start()
    assert server.pid() == pid
    for _ in range(2):
        server.stop()
        assert server.gone()
    server.start()
    assert server.pid() not in (None, pid)


@pytest.mark.parametrize("mode", list(StopMode))
def test_stopping_leaves_no_process(server: Server, mode: StopMode) -> None:
    pid = server.pid()
    assert pid is not None
    family = [pid, *process.children_of(pid)]
    assert len(family) > 3
    with psycopg.connect(server.dsn):  # an open session does not hinder it
        server.stop(mode)
    assert not any(map(process.alive, family))


def test_killed_and_restarted_at_once_keeps_what_was_committed(server: Server) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create table if not exists kept (n int)")
        connection.execute("truncate kept")
    for n in range(5):
        with psycopg.connect(server.dsn) as connection:
            connection.execute("insert into kept values (%s)", (n,))
        server.kill()
        assert server.gone()
        server.start()
    assert ask(server, "select count(*) from kept") == "5"


def test_only_the_postmaster_killed_and_restarted_at_once(server: Server) -> None:
    """Its children still hold the shared memory: the first attempt may fail, the start does not."""
    for _ in range(3):
        pid = server.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        process.wait_until(lambda: server.pid() is None, 5)
        server.start()
        assert server.ready()


def test_a_stale_pid_file_with_the_number_of_a_stranger(server: Server) -> None:
    server.kill()
    path = server.data / "postmaster.pid"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert server.pid() is None
    server.start()
    assert ask(server, "select 1") == "1"


def test_a_port_taken_before_the_first_start_is_no_error(
    programs: Programs, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody is quicker: between our look at the port and the server's."""
    server = make(programs, place, "two")
    server.create()
    with socket.create_server((ports.HOST, 0)) as quicker:
        taken = quicker.getsockname()[1]
        answers = iter([taken, taken, ports.choose()])
        monkeypatch.setattr(ports, "choose", lambda: next(answers))
        try:
            server.start()
            assert server.port != taken
            assert ask(server, "select 1") == "1"
        finally:
            server.kill()


def test_a_port_taken_while_it_was_stopped_is_named(server: Server) -> None:
    server.stop()
    with (
        socket.create_server((ports.HOST, server.port or 0)),
        pytest.raises(UserError, match=f"its port {server.port} is taken"),
    ):
        server.start()
    server.start()


def test_a_server_that_cannot_start_says_why(server: Server) -> None:
    server.stop()
    server.settings = {"max_connections": "many"}
    with pytest.raises(UserError, match="max_connections"):
        server.start()
    server.settings = {}
    server.start()


def test_the_files_of_another_major_version_are_refused(server: Server) -> None:
    server.stop()
    ours = server.programs
    server.programs = Programs(ours.bin, "99.1")
    with pytest.raises(UserError, match=f"was made by PostgreSQL {ours.major}"):
        server.start()
    server.programs = ours


def test_an_initdb_that_was_killed_is_begun_anew(programs: Programs, place: Path) -> None:
    server = make(programs, place, "three")
    half = place / "three.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("15\n")
    server.create()
    assert server.exists()
    assert not half.exists()


def test_servers_do_not_see_the_environment_of_clients(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    server.stop()
    server.start()
    assert ask(server, "select 1") == "1"
