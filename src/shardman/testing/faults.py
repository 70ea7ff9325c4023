"""What can happen to a cluster, and how long its clients notice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from shardman.testing.cluster import LORD, Cluster
from shardman.testing.network import Network

#: Shorter than failover_after, and long enough for a failover to be over.
SHORT_S = (0.0, 2.0)
LONG_S = 8.0


def freeze(cluster: Cluster, node: int) -> Callable[[], None]:
    """Stops every process of a server (SIGSTOP); returns what lets them go on."""
    server = cluster.local.server(node).pid()
    assert server is not None
    # First of all: it makes no more processes.
    os.kill(server, signal.SIGSTOP)
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(server)], capture_output=True, text=True, check=True
    )
    pids = [server, *map(int, listed.stdout.split())]

    def send(number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    send(signal.SIGSTOP)
    return lambda: send(signal.SIGCONT)


@dataclass
class Clocked:
    """From a fault to the first acknowledged write to a row of the nodes that it struck."""

    fault: str
    seconds: float | None = None


class Faults:
    """All of them; each strikes, waits, and is over.

    Args:
        table: one with columns id and touched; its rows are used to see when clients go on.
    """

    def __init__(self, net: Network, rng: random.Random, replevel: int, table: str) -> None:
        self._net = net
        self._cluster = net.cluster
        self._rng = rng
        self._replevel = replevel
        self._table = table
        self.nodes = sorted(net.cluster.worker_dsns)
        self.clocked: list[Clocked] = []
        self._clocks: list[threading.Thread] = []

    def kinds(self) -> dict[str, Callable[[], None]]:
        """By name; the longer ones only where replicas take over."""
        brief: dict[str, Callable[[], None]] = {
            "shardlord killed": self._shardlord,
            "lord's server killed": lambda: self._kill([LORD], self._short()),
            "worker killed": lambda: self._kill(self._pick(1), self._short()),
            "worker restarted": self._restart,
            "worker hangs": lambda: self._hang(self._short()),
            "worker cut off": lambda: self._isolate(self._short()),
            "link cut one way": lambda: self._one_way(self._short()),
        }
        long: dict[str, Callable[[], None]] = {
            "worker killed for long": lambda: self._kill(self._pick(1), LONG_S),
            "worker hangs for long": lambda: self._hang(LONG_S),
            "worker cut off for long": lambda: self._isolate(LONG_S),
            "link cut one way for long": lambda: self._one_way(LONG_S),
            "disk gone": self._disk,
        }
        two: dict[str, Callable[[], None]] = {
            "two workers killed for long": lambda: self._kill(self._pick(2), LONG_S)
        }
        return {
            **brief,
            **(long if self._replevel else {}),
            **(two if self._replevel > 1 and len(self.nodes) > 3 else {}),
        }

    def end(self) -> None:
        """Waits until all clocks have stopped."""
        for clock in self._clocks:
            clock.join(120)

    # -- the faults ------------------------------------------------------------------------------

    def _short(self) -> float:
        return self._rng.uniform(*SHORT_S)

    def _pick(self, count: int) -> list[int]:
        return self._rng.sample(self.nodes, count)

    def _shardlord(self) -> None:
        self._cluster.stop_lord(kill=True)
        self._cluster.start_lord()

    def _kill(self, nodes: list[int], seconds: float) -> None:
        name = "killed for long" if seconds == LONG_S else "killed"
        struck = self._struck(nodes)
        for node in nodes:
            self._cluster.kill_node(node)
        self._clock(f"{len(nodes)} {name}", nodes, struck)
        time.sleep(seconds)
        for node in nodes:
            self._cluster.start_node(node)

    def _restart(self) -> None:
        node = self._pick(1)[0]
        self._cluster.stop_node(node)
        self._cluster.start_node(node)

    def _hang(self, seconds: float) -> None:
        nodes = self._pick(1)
        struck = self._struck(nodes)
        go_on = freeze(self._cluster, nodes[0])
        self._clock("hangs", nodes, struck)
        time.sleep(seconds)
        go_on()

    def _isolate(self, seconds: float) -> None:
        nodes = self._pick(1)
        struck = self._struck(nodes)
        self._net.isolate(nodes[0])
        self._clock("cut off", nodes, struck)
        time.sleep(seconds)
        self._net.heal()

    def _one_way(self, seconds: float) -> None:
        one, other = self._rng.sample([LORD, *self.nodes], 2)
        self._net.cut(one, other)
        time.sleep(seconds)
        self._net.heal()

    def _disk(self) -> None:
        """The node is gone for good; another one takes its place."""
        node = self._pick(1)[0]
        struck = self._struck([node])
        self._cluster.kill_node(node)
        shutil.rmtree(self._cluster.local.server(node).data)
        self.nodes.remove(node)
        self._clock("disk gone", [node], struck)
        remove = "select shardman.rm_node(%s, true)"
        done = self._cluster.cmd(remove, (node,))
        if done.status == "canceled":  # The node's failover came between.
            done = self._cluster.cmd(remove, (node,))
        assert done.status == "success", done
        new = self._cluster.local.state.servers[-1].node_id + 1
        self._cluster.local.start_servers(self._cluster.local.add_servers(1))
        self._net.add(new)
        self.nodes.append(new)

    # -- how long it is noticed --------------------------------------------------------------------

    def _struck(self, nodes: Iterable[int]) -> list[int]:
        """A row on each of the nodes."""
        ids = []
        for node in nodes:
            with suppress(psycopg.Error), self._cluster.connect(node, connect_timeout=3) as conn:
                row = conn.execute(
                    f"select min(id) from {self._table} where tableoid::regclass::text like '%\\_data'"
                ).fetchone()
                ids += [row[0]] if row and row[0] is not None else []
        return ids

    def _clock(self, fault: str, nodes: Iterable[int], ids: list[int]) -> None:
        others = [n for n in self.nodes if n not in set(nodes)]
        for row in ids:
            clocked = Clocked(fault)
            self.clocked.append(clocked)
            thread = threading.Thread(
                target=self._write, args=(self._rng.choice(others), row, clocked), daemon=True
            )
            thread.start()
            self._clocks.append(thread)

    def _write(self, node: int, row: int, clocked: Clocked) -> None:
        """A client that tries again until it succeeds. The write changes nothing."""
        begun = time.monotonic()
        while clocked.seconds is None and time.monotonic() - begun < 120:
            with suppress(psycopg.Error), self._cluster.connect(node, connect_timeout=5) as conn:
                conn.execute(f"update {self._table} set id = id where id = %s", (row,))
                clocked.seconds = time.monotonic() - begun
            time.sleep(0.02)
