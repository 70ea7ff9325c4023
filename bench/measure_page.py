"""What the page and metrics cost the servers: statements, sessions and processor time, by how many look.

``pg_stat_statements`` counts what the roles of the viewers and of the scrape have sent, so nothing of the
shardlord's is among it; processor time of the servers is what they take more than they take without any viewer.
Viewers ask as the browser does: once a second, with the version that they have.
"""

from __future__ import annotations

import argparse
import http.client
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.table import Table

from measure_idle import _of_process, _of_server, _settle, _size
from shardman.local import ports
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

PASSWORD = "look"
#: The page's own role and the scrape's, and the viewers'.
WATCHER, LOOKER = "watcher", "looker"
SCRAPE_EVERY_S = 5.0
NORMAL = ((3, 12), (16, 1024))
VIEWERS = (1, 10, 100)

_CALLS = """
select coalesce(sum(s.calls), 0)::bigint from pg_stat_statements s join pg_roles r on r.oid = s.userid
 where r.rolname = any(%s)
"""
_SESSIONS = "select sessions from pg_stat_database where datname = current_database()"


@dataclass
class Counted:
    """At one moment: statements of viewers and watcher, sessions begun, seconds of processor time."""

    at: float
    statements: int
    sessions: int
    servers: float
    process: float


class Browser(threading.Thread):
    """One viewer, who looks at the first page once a second."""

    def __init__(self, port: int, first: float) -> None:
        super().__init__(daemon=True)
        self.port, self.first = port, first
        self.stop = threading.Event()
        self.answers = self.late = self.bytes = 0
        self.largest = 0
        self.worst = 0.0

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        form = urllib.parse.urlencode({"role": LOOKER, "password": PASSWORD})
        kind = {"content-type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/login", form, kind)
        answer = connection.getresponse()
        answer.read()
        headers = {"cookie": (answer.getheader("set-cookie") or "").partition(";")[0]}
        self.stop.wait(self.first)
        while not self.stop.is_set():
            begun = time.monotonic()
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            took = time.monotonic() - begun
            self.answers += 1
            self.bytes += len(body)
            self.largest = max(self.largest, len(body))
            self.worst = max(self.worst, took)
            if found := re.search(rb'"X-Version": "([0-9a-f]+)"', body):
                headers |= {"x-version": found[1].decode(), "hx-request": "true"}
            self.stop.wait(max(0.0, 1.0 - took))


def measure(sizes: Iterable[tuple[int, int]], seconds: float) -> Table:
    """Rows for each size: nobody, viewers, a scrape.

    Args:
        sizes: workers and partitions.
        seconds: how long each is watched.
    """
    table = Table(title=f"what looking costs the cluster, {seconds:.0f} s each; by second")
    for column in (
        "nodes", "parts", "who looks", "statements", "a node", "sessions", "CPU% servers", "CPU% a node",
        "CPU% page", "slowest ms", "page kB",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for workers, parts in sizes:
        for row in _rows(workers, parts, seconds):
            table.add_row(*row)
            print("\t".join(row), file=sys.stderr, flush=True)
    return table


def _rows(workers: int, parts: int, seconds: float) -> Iterator[list[str]]:
    settings: dict[str, str | int] = {
        "max_locks_per_transaction": max(1024, parts),
        "shared_preload_libraries": "pg_stat_statements",
        "pg_stat_statements.track_utility": "off",
    }
    with closing(Cluster(workers=workers, settings=settings)) as cluster:
        _prepare(cluster, parts)
        nodes = len(cluster.worker_dsns) + 1
        quiet = _watch(cluster, None, seconds)
        with _page(cluster) as (pid, _):
            yield _row(nodes, parts, "curves only", _watch(cluster, pid, seconds), quiet)
        for number in VIEWERS:
            with _page(cluster) as (pid, port), _browsers(port, number) as browsers:
                time.sleep(5)
                counted = _watch(cluster, pid, seconds)
                shown = _shown(browsers)
            yield _row(nodes, parts, f"{number} at the page", counted, quiet) + shown
        with _scraped(cluster) as pid:
            time.sleep(5)
            counted = _watch(cluster, pid, max(seconds, 60.0))
        yield _row(nodes, parts, "a scrape every 5 s", counted, quiet)


def _prepare(cluster: Cluster, parts: int) -> None:
    for node in (0, *cluster.worker_dsns):
        cluster.sql(node, "create extension if not exists pg_stat_statements")
        for role in (WATCHER, LOOKER):
            cluster.sql(
                node, f"create role {role} login password '{PASSWORD}' in role shardman_viewer"
            )
    cluster.sql(1, "create table t (id bigint primary key, v int)")
    cluster.sql(1, f"insert into t select n, 0 from generate_series(1, {parts * 10}) n")
    done = cluster.cmd(
        b"select shardman.create_hash_partitions(1, 't', 'id', %s)", (parts,), seconds=3600
    )
    assert done.status == "success", done
    _settle(cluster)


def _watch(cluster: Cluster, pid: int | None, seconds: float) -> tuple[Counted, Counted]:
    begin = _look(cluster, pid)
    time.sleep(seconds)
    return begin, _look(cluster, pid)


def _look(cluster: Cluster, pid: int | None) -> Counted:
    nodes = (0, *cluster.worker_dsns)
    roles = ([WATCHER, LOOKER],)
    return Counted(
        time.monotonic(),
        sum(int(cluster.value(n, _CALLS, roles)) for n in nodes),
        sum(int(cluster.value(n, _SESSIONS)) for n in nodes),
        sum(_of_server(cluster, n) for n in nodes),
        _of_process(pid) if pid else 0.0,
    )


def _row(
    nodes: int, parts: int, who: str, seen: tuple[Counted, Counted], quiet: tuple[Counted, Counted]
) -> list[str]:
    def rate(name: str, of: tuple[Counted, Counted]) -> float:
        more = getattr(of[1], name) - getattr(of[0], name)
        return float(more / (of[1].at - of[0].at))

    statements = rate("statements", seen)
    servers = 100 * (rate("servers", seen) - rate("servers", quiet))
    return [
        str(nodes),
        str(parts),
        who,
        f"{statements:.1f}",
        f"{statements / nodes:.1f}",
        f"{rate('sessions', seen) - rate('sessions', quiet):.1f}",
        f"{servers:.1f}",
        f"{servers / nodes:.1f}",
        f"{100 * rate('process', seen):.1f}",
    ]


def _shown(browsers: list[Browser]) -> list[str]:
    worst = max(b.worst for b in browsers)
    return [f"{1000 * worst:.0f}", f"{max(b.largest for b in browsers) / 1000:.0f}"]


@contextmanager
def _program(*words: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-P", "-m", "shardman", *words])
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/login")
    return connection.getresponse().status > 0


@contextmanager
def _page(cluster: Cluster) -> Iterator[tuple[int, int]]:
    port = ports.choose()
    dsn = make_conninfo(cluster.lord_dsn, user=WATCHER, password=PASSWORD)
    with _program("web", dsn, "--listen", f"127.0.0.1:{port}") as pid:
        eventually("the page answers", lambda: _answers(port), seconds=60, tolerate=OSError)
        time.sleep(10)  # what is asked once at the start
        yield pid, port


@contextmanager
def _browsers(port: int, number: int) -> Iterator[list[Browser]]:
    browsers = [Browser(port, n / number) for n in range(number)]
    with ExitStack() as stack:
        for each in browsers:
            each.start()
            stack.callback(each.stop.set)
        yield browsers


@contextmanager
def _scraped(cluster: Cluster) -> Iterator[int]:
    port = ports.choose()
    dsn = make_conninfo(cluster.lord_dsn, user=WATCHER, password=PASSWORD)
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(SCRAPE_EVERY_S):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/metrics")
            connection.getresponse().read()

    with _program("metrics", "--dsn", dsn, "--listen", f"127.0.0.1:{port}") as pid:
        eventually("metrics answer", lambda: _answers(port), seconds=60, tolerate=OSError)
        threading.Thread(target=scrape, daemon=True).start()
        try:
            yield pid
        finally:
            stop.set()


def main() -> None:
    """Prints the table for the sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", help="WORKERSxPARTITIONS, such as 3x12 16x1024")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each is watched")
    args = parser.parse_args()
    asked = [_size(parser, text) for text in args.sizes]
    Console(width=140).print(measure(asked or NORMAL, args.seconds))


if __name__ == "__main__":
    main()
