"""Clients that move money between nodes, and are killed: ``python -m shardman.testing.purses DSN…`` is one.

Each transfer changes two purses in one transaction of `shardman.connect`, mostly on two nodes, and counts
itself in both. So the money of all purses stays what it was, and their counts have an even sum, or a transfer
was torn.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

import shardman
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

SIZE = 1000
BALANCE = 1000
#: Seconds between two kills, on the average.
KILL_EVERY_S = 2.0
#: Until nothing that a dead client left is prepared any more, in seconds.
ENDED_S = 10.0


class Purses:
    """The table, and the clients.

    Args:
        clients: how many at a time.
        seed: of the dice that choose who is killed.
        replevel: replicas of each partition.
    """

    def __init__(
        self, cluster: Cluster, partitions: int, clients: int, seed: int, replevel: int = 0
    ) -> None:
        self._cluster = cluster
        self._clients = clients
        self._rng = random.Random(seed)
        self._dsns = list(cluster.worker_dsns.values())
        self._end = threading.Event()
        self.killed = 0
        self.transfers = 0
        cluster.sql(1, "create table purses (id int primary key, balance bigint, transfers bigint)")
        cluster.sql(1, "insert into purses select generate_series(1, %s), %s, 0", (SIZE, BALANCE))
        done = cluster.cmd(
            "select shardman.create_hash_partitions(1, 'purses', 'id', %s)", (partitions,)
        )
        assert done.status == "success", done
        if replevel:
            done = cluster.cmd("select shardman.set_replevel('purses', %s)", (replevel,))
            assert done.status == "done", done

    @contextmanager
    def transferring(self) -> Iterator[None]:
        """Clients work meanwhile, and one after the other is killed and replaced."""
        running = [self._start() for _ in range(self._clients)]
        thread = threading.Thread(target=self._kill, args=(running,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join(10)
            for each in running:
                each.kill()
                each.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        dsns = self._rng.sample(self._dsns, len(self._dsns))
        return subprocess.Popen([sys.executable, "-m", "shardman.testing.purses", *dsns])

    def _kill(self, running: list[subprocess.Popen[bytes]]) -> None:
        while not self._end.wait(self._rng.uniform(0.5, 1.5) * KILL_EVERY_S):
            which = self._rng.randrange(len(running))
            running[which].send_signal(signal.SIGKILL)
            running[which].wait()
            self.killed += 1
            running[which] = self._start()

    def wrong(self, nodes: Sequence[int]) -> Iterator[str]:
        """What is not as it must be, when all clients have ended."""
        for node in nodes:
            try:
                eventually(
                    f"nothing of a client is prepared on node {node}",
                    lambda node=node: self._cluster.value(  # type: ignore[misc]
                        node, "select count(*) from pg_prepared_xacts"
                    ),
                    until=lambda left: left == 0,
                    seconds=ENDED_S,
                    tolerate=psycopg.Error,
                )
            except AssertionError as late:
                yield str(late)
            ((balance, changes),) = self._cluster.sql(
                node, "select sum(balance), sum(transfers) from purses"
            )
            self.transfers = changes // 2
            if balance != SIZE * BALANCE or changes % 2:
                yield f"node {node}: {balance} in all purses, and {changes} changes of them"


def _transfer(db: shardman.Connection, rng: random.Random) -> None:
    one, other = sorted(rng.sample(range(1, SIZE + 1), 2))
    amount = rng.randint(1, 50)
    for purse, change in ((one, -amount), (other, amount)):
        db.execute(
            "update purses set balance = balance + %s, transfers = transfers + 1 where id = %s",
            (change, purse),
        )


def main() -> None:
    """The client: it transfers until it is killed."""
    rng = random.Random()
    while True:
        try:
            with shardman.connect(*sys.argv[1:], connect_timeout=3) as db:
                while True:
                    db.run(lambda at: _transfer(at, rng))
        except psycopg.Error:
            time.sleep(0.1)


if __name__ == "__main__":
    main()
