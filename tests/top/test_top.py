"""`shardman top` on a cluster of real servers, on a terminal of Textual's that is none."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from shardman.cli.live.feed import Feed
from shardman.cli.live.screen import Top
from shardman.cli.main import main
from shardman.errors import UserError
from shardman.testing.cluster import Cluster
from shardman.testing.faults import freeze
from shardman.testing.plugin import ClusterFactory
from shardman.testing.waiting import eventually


@pytest.fixture(scope="module")
def cluster(module_cluster_factory: ClusterFactory) -> Cluster:
    made = module_cluster_factory(workers=2)
    made.sql(0, "insert into shardman.settings values ('failover_after', '600')")
    made.sql(1, "create table acc (id int primary key, v int)")
    assert made.cmd("select shardman.create_hash_partitions(1, 'acc', 'id', 4)").status == "success"
    return made


def shown(app: Top) -> str:
    """What is on the screen, line by line."""
    screen = app.screen
    strips = screen._compositor.render_strips(screen.size)
    return "\n".join(strip.text.rstrip() for strip in strips)


async def until(app: Top, pilot: Any, *words: str) -> str:
    for _ in range(120):
        await pilot.pause(0.25)
        said = shown(app)
        if all(word in said for word in words):
            return said
    raise AssertionError(f"{words} are not shown:\n{shown(app)}")


async def test_the_pages(cluster: Cluster) -> None:
    feed = Feed(cluster.dsn(1))
    await feed.begin()
    app = Top(feed, 0.5)
    async with app.run_test(size=(80, 24)) as pilot:
        said = await until(app, pilot, "nodes 3/3", "nothing wrong", "acts", "Quit")
        assert "worker" in said
        await pilot.press("t")
        await until(app, pilot, "acc", "writes/s")
        await pilot.press("p")
        await until(app, pilot, "acc_0", "acc_3", "replicas on")
        with cluster.connect(1) as conn:
            for _ in range(4):
                conn.execute(
                    "insert into acc select g, 0 from generate_series(1, 2000) g on conflict do nothing"
                )
                await pilot.pause(0.1)
        await pilot.press("c")
        # 80 columns have no room for the whole name.
        await until(app, pilot, "create_hash_part", "success")
        owner = cluster.value(0, "select owner from shardman.partitions where part_name = 'acc_0'")
        moved = await asyncio.to_thread(
            cluster.cmd, "select shardman.move_part('acc_0', %s)", (3 - owner,)
        )
        assert moved.status == "success", moved
        await until(app, pilot, "move_part")
        await pilot.press("space")
        await until(app, pilot, "PAUSED")
        await pilot.press("space", "n")
        go_on = freeze(cluster, 2)
        try:
            await until(app, pilot, "down", "nodes 2/3")
            await pilot.press("w")
            await until(app, pilot, "node 2")
        finally:
            go_on()
        await pilot.press("n")
        await until(app, pilot, "nodes 3/3")
        await pilot.press("q")
    assert app.return_code == 0


async def test_who_only_looks_and_who_may_not(cluster: Cluster) -> None:
    for node in (0, 1, 2):
        cluster.sql(node, "create role looker login password 'lookpw' in role shardman_viewer")
        cluster.sql(node, "create role nobody_here login password 'nopw'")
    feed = Feed(make_conninfo(cluster.dsn(2), user="looker", password="lookpw"))
    await feed.begin()
    app = Top(feed, 0.5)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(app, pilot, "nodes 3/3", "acts")
        await pilot.press("c")
        await until(app, pilot, "add_node")
    nobody = Feed(make_conninfo(cluster.dsn(2), user="nobody_here", password="nopw"))
    with pytest.raises(UserError, match="not allowed"):
        await nobody.begin()


def test_without_a_terminal(cluster: Cluster, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", "--dsn", cluster.dsn(0)])
    assert ended.value.code == 1
    assert "needs a terminal" in capsys.readouterr().err


def test_on_a_terminal(cluster: Cluster) -> None:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    program = subprocess.Popen(
        [sys.executable, "-m", "shardman", "top", "--dsn", cluster.dsn(0)],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(its)
    said = bytearray()

    def read() -> str:
        # When the program has ended there is nobody at the other end.
        with contextlib.suppress(OSError):
            if select.select([ours], [], [], 0)[0]:
                said.extend(os.read(ours, 65536))
        return re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", said).decode("utf-8", "replace")

    try:
        eventually("it shows nodes", read, until=lambda text: "nodes 3/3" in text, seconds=60)
        os.write(ours, b"q")
        eventually("it ends", lambda: (read(), program.poll())[1], until=lambda code: code == 0)
    finally:
        program.kill()
        program.wait()
        os.close(ours)
