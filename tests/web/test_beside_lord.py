"""The page from a shardlord's process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from shardman.local import ports
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from web.viewing import Viewer

SHARDMAN = [sys.executable, "-P", "-m", "shardman", "lord"]


def test_the_page_beside_a_shardlord(cluster: Cluster) -> None:
    cluster.sql(0, "create role looker login password 'x' in role shardman_viewer")
    address = f"127.0.0.1:{ports.choose()}"
    env = os.environ | {"PGPASSWORD": cluster.password, "SHARDMAN_LORD_DSN": cluster.lord_dsn}
    lord = subprocess.Popen([*SHARDMAN, "--web", address], env=env)
    try:
        viewer = Viewer(f"http://{address}")
        eventually(
            "the page answers",
            lambda: viewer.get("/login").status,
            until=lambda status: status == 200,
            seconds=30,
            tolerate=OSError,
        )
        assert viewer.get("/").address == "/login"
        assert viewer.log_in("looker", "x").status == 303
        assert "Nodes" in viewer.get("/").text
        # The one that acts goes, this one takes over: the page is no hindrance to its being a shardlord.
        cluster.stop_lord()
        eventually(
            "the page names it as the one that acts",
            lambda: viewer.get("/").text,
            until=lambda text: f"pid {lord.pid}, acts" in text,
            seconds=30,
        )
        lord.send_signal(signal.SIGTERM)
        # As long as it may take for what runs: leadership.STOP_S, and a grace.
        assert lord.wait(40) == 0
    finally:
        lord.kill()
        cluster.start_lord()


def test_where_it_may_not_listen(cluster: Cluster) -> None:
    def refused(*options: str) -> str:
        done = subprocess.run(
            [*SHARDMAN, cluster.lord_dsn, *options], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "unencrypted" in refused("--web", "0.0.0.0:8432")
    assert "no address to listen on" in refused("--web", "8432")
    assert "there is no file" in refused("--web", "127.0.0.1:8432", "--certificate", "/nowhere")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "cannot listen" in refused("--web", f"127.0.0.1:{port}")
