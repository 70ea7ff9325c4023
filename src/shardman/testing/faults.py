"""What can happen to a cluster, and how long its clients notice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from shardman.testing.clocks import Clocks
from shardman.testing.clumsy import Clumsy
from shardman.testing.cluster import LORD, Cluster
from shardman.testing.file_copy import copy_beside
from shardman.testing.inside import Inside
from shardman.testing.network import Network
from shardman.testing.small_disk import SmallDisk

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


class Faults:
    """All of them; each strikes, waits, and is over.

    Args:
        table: one with columns id and touched; its rows are used to see when clients go on.
        disk: what one of the nodes lies on; None where nothing can be mounted.
    """

    def __init__(
        self,
        net: Network,
        rng: random.Random,
        replevel: int,
        table: str,
        disk: SmallDisk | None = None,
    ) -> None:
        self._net = net
        self._cluster = net.cluster
        self._rng = rng
        self._replevel = replevel
        self._disk = disk
        self.nodes = sorted(net.cluster.worker_dsns)
        #: Nodes whose own clients are meant by the fault that is under way, too.
        self.struck: list[int] = []
        one = (net.cluster, rng, lambda: self._rng.choice(self.nodes), lambda: self._pick(1)[0])
        self._inside, self._clumsy = Inside(*one), Clumsy(*one)
        self._clocks = Clocks(net.cluster, rng, table)
        self.clocked = self._clocks.clocked

    def kinds(self) -> dict[str, Callable[[], None]]:
        """By name; the longer ones only where replicas take over."""
        brief: dict[str, Callable[[], None]] = {
            "shardlord killed": self._shardlord,
            "shardlord hangs": lambda: self._inside.hang_lord(self._short()),
            "lord's server killed": lambda: self._kill([LORD], self._short()),
            "worker killed": lambda: self._kill(self._pick(1), self._short()),
            "worker restarted": self._restart,
            "worker hangs": lambda: self._hang(self._short()),
            "worker cut off": lambda: self._isolate(self._short()),
            "wire cut one way": lambda: self._one_way(self._short()),
            "connections used up": lambda: self._inside.fill(self._short()),
            "connections of the lord used up": lambda: self._inside.fill_lord(self._short()),
            "process killed": self._inside.kill,
            "session hangs": lambda: self._inside.hang("session of another node", self._short()),
            "session of the shardlord hangs": self._hang_inside("session of the shardlord"),
            "receiver of metadata hangs": self._hang_inside("receiver of metadata"),
            "launcher hangs": self._hang_inside("launcher"),
            "copy beside the original": self._copy,
            "metadata channel damaged": lambda: self._clumsy.harm("metadata"),
            "metadata channel damaged on the lord": lambda: self._clumsy.harm("lords", LORD),
            "route damaged": lambda: self._clumsy.harm("route"),
            "setting changed": self._clumsy.change_setting,
            **({"disk full": lambda: self._fill(self._short())} if self._disk else {}),
        }
        long: dict[str, Callable[[], None]] = {
            "worker killed for long": lambda: self._kill(self._pick(1), LONG_S),
            "worker hangs for long": lambda: self._hang(LONG_S),
            "worker cut off for long": lambda: self._isolate(LONG_S),
            "wire cut one way for long": lambda: self._one_way(LONG_S),
            "disk gone": self._lose,
            "walsender ended": lambda: self._inside.end("walsender"),
            "apply worker ended": lambda: self._inside.end("apply worker"),
            "walsender hangs for long": self._hang_inside("walsender"),
            "apply worker hangs for long": self._hang_inside("apply worker"),
            "checkpointer hangs for long": self._hang_inside("checkpointer"),
            "WAL writer hangs for long": self._hang_inside("WAL writer"),
            "channel damaged": lambda: self._clumsy.harm("channel"),
            "replica damaged": lambda: self._clumsy.harm("replica"),
            "rows of a replica changed": self._clumsy.change_rows,
            "rows of a primary dropped": self._clumsy.drop_rows,
            **({"disk full for long": lambda: self._fill(LONG_S)} if self._disk else {}),
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
        self._clocks.end()

    # -- the faults ------------------------------------------------------------------------------

    def _short(self) -> float:
        return self._rng.uniform(*SHORT_S)

    def _pick(self, count: int) -> list[int]:
        self.struck = self._rng.sample(self.nodes, count)
        return self.struck

    def _hang_inside(self, process: str) -> Callable[[], None]:
        return lambda: self._inside.hang(process, LONG_S)

    def _copy(self) -> None:
        """The copy is there while clients go on."""
        node = self._pick(1)[0]
        with copy_beside(self._cluster, node, first=self._rng.random() < 0.5):
            time.sleep(self._rng.uniform(1, LONG_S))

    def _fill(self, seconds: float) -> None:
        """Somebody else's file takes all room, and what is freed meanwhile."""
        assert self._disk is not None
        self.struck = [self._disk.node]
        rows = self._clocks.rows(self.struck)
        until = time.monotonic() + seconds
        self._disk.fill()
        self._clock("disk full", self.struck, rows)
        while time.monotonic() < until:
            self._disk.fill()
            time.sleep(0.2)
        self._disk.empty()

    def _clock(self, fault: str, nodes: list[int], rows: list[int]) -> None:
        others = [n for n in self.nodes if n not in nodes]
        self._clocks.start(fault, others, rows)

    def _shardlord(self) -> None:
        self._cluster.stop_lord(kill=True)
        self._cluster.start_lord()

    def _kill(self, nodes: list[int], seconds: float) -> None:
        name = "killed for long" if seconds == LONG_S else "killed"
        struck = self._clocks.rows(nodes)
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
        struck = self._clocks.rows(nodes)
        go_on = freeze(self._cluster, nodes[0])
        self._clock("hangs", nodes, struck)
        time.sleep(seconds)
        go_on()

    def _isolate(self, seconds: float) -> None:
        nodes = self._pick(1)
        struck = self._clocks.rows(nodes)
        self._net.isolate(nodes[0])
        self._clock("cut off", nodes, struck)
        time.sleep(seconds)
        self._net.heal()

    def _one_way(self, seconds: float) -> None:
        one, other = self._rng.sample([LORD, *self.nodes], 2)
        self._net.cut(one, other)
        time.sleep(seconds)
        self._net.heal()

    def _lose(self) -> None:
        """The node is lost for good; another one takes its place."""
        kept = [] if self._disk is None else [self._disk.node]
        node = self._rng.choice([n for n in self.nodes if n not in kept])
        self.struck = [node]
        struck = self._clocks.rows([node])
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
