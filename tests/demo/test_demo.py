"""The demo from beginning to end, on real servers, as a newcomer runs it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shardman.testing.waiting import eventually

pytestmark = pytest.mark.server

_SHARDMAN = (sys.executable, "-P", "-m", "shardman")


def processes_of(directory: Path) -> list[str]:
    """Command lines of the servers that live below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(directory) in line and "postgres" in line:
                found.append(line)
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the servers' account may enter; pytest's own may be closed to it."""
    above = Path(tempfile.mkdtemp(prefix="shardman-test-"))
    above.chmod(0o755)
    yield above / "cluster"
    shutil.rmtree(above, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_story(place: Path) -> None:
    demo = (*_SHARDMAN, "demo", "--dir", str(place))
    done = subprocess.run((*demo, "--keep"), capture_output=True, text=True, check=False)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "336,776 rows through worker" in done.stdout
        assert "Every check held" in done.stdout
        assert f"shardman local down --dir {place} --wipe" in done.stdout
        assert "✗" not in done.stdout
        described = json.loads((place / "cluster.json").read_text())
        assert len(described["workers"]) == 4
        for node in (described["lord"], *described["workers"]):
            with psycopg.connect(node["dsn"]) as conn:
                row = conn.execute("select count(*) from flights where year = 2013").fetchone()
                assert row == (336_776,)
    finally:
        subprocess.run((*_SHARDMAN, "local", "down", "--dir", str(place), "--wipe"), check=True)
    assert processes_of(place) == []
    assert not place.exists()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(place: Path, sign: signal.Signals) -> None:
    demo = subprocess.Popen(
        (*_SHARDMAN, "demo", "--dir", str(place), "--keep"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    eventually("servers run", lambda: processes_of(place) or demo.poll() is not None, every=0.2)
    time.sleep(1)
    demo.send_signal(sign)
    said, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, said
    assert processes_of(place) == []
    assert not place.exists()


def test_a_directory_that_is_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = subprocess.run(
        (*_SHARDMAN, "demo", "--dir", str(tmp_path)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert (tmp_path / "mine").read_text() == "precious"
