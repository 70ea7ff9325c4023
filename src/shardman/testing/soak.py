"""Chaos for as long as you like: ``python -m shardman.testing.soak --minutes 10``.

Writers through every node, partitions moving at random, the shardlord, workers and the lord's server
killed at random. At the end: the bank's total is what it was, every acknowledged insert is there exactly
once, increments were neither lost nor doubled, and `shardman check --data` finds nothing.

Money moves only between accounts of one partition: a transaction over two nodes is not atomic when one
of them is killed in the middle of its commit (docs/weak-sides.md), one within a partition is.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg

from shardman.pg.invariants import check
from shardman.testing.cluster import LORD, Cluster
from shardman.testing.load import Bank, Load

SIZE = 3000
PARTITIONS = 12
# Each round has all of them, in an order of its own.
VICTIMS = ("shardlord", "worker", "lord's server", "worker")
#: With replicas there is also a worker that stays away until its replicas have taken over.
LONG = "worker for long"
LONG_S = 8.0


@dataclass
class Report:
    """What happened."""

    faults: dict[str, int] = field(default_factory=dict)
    moves: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    retried: int = 0
    unknown: int = 0
    refused: int = 0
    longest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The report, for a person."""
        yield f"faults              {sum(self.faults.values())} {self.faults}"
        yield f"moves               {sum(self.moves.values())} {self.moves}"
        yield f"acknowledged        {self.acknowledged}"
        yield f"serialization retry {self.retried}"
        yield f"outcome unknown     {self.unknown} (connections lost to kills)"
        yield f"not begun           {self.refused} (a server was down)"
        yield f"longest outage      {self.longest_s:.2f} s"
        yield "lost 0, doubled 0" if not self.wrong else "WRONG:"
        yield from self.wrong


class PartitionBank(Bank):
    """Transfers within one partition."""

    def __init__(self, accounts: str, groups: list[list[int]]) -> None:
        super().__init__(accounts, sum(len(g) for g in groups))
        self._groups = groups

    def transfer(self, conn: psycopg.Connection[tuple[object, ...]], rng: random.Random) -> int:
        one, other = sorted(rng.sample(rng.choice(self._groups), 2))
        amount = rng.randint(1, 50)
        with conn.transaction():
            for account, change in ((one, -amount), (other, amount)):
                done = conn.execute(
                    f"update {self.accounts} set balance = balance + %s where id = %s",
                    (change, account),
                )
                if done.rowcount != 1:
                    raise AssertionError(f"account {account} was missing for a transfer")
        return 0

    def look(self, conn: psycopg.Connection[tuple[object, ...]], rng: random.Random) -> int:
        """Counts one partition: a reader, through whatever node."""
        k = rng.randrange(len(self._groups))
        row = conn.execute(f"select count(*) from {self.accounts}_{k}").fetchone()
        if row != (len(self._groups[k]),):
            raise AssertionError(f"{self.accounts}_{k} has {row} rows, not {len(self._groups[k])}")
        return 0


def prepare(cluster: Cluster, replevel: int) -> PartitionBank:
    """Accounts and marks, spread over all workers, each partition with so many replicas."""
    cluster.sql(
        1,
        "create table accounts (id int primary key, balance bigint not null default 1000,"
        " touched bigint not null default 0)",
    )
    cluster.sql(1, "create table marks (id bigint primary key)")
    cluster.sql(1, "insert into accounts (id) select generate_series(1, %s)", (SIZE,))
    for table in ("accounts", "marks"):
        done = cluster.cmd(
            "select shardman.create_hash_partitions(1, %s, 'id', %s)", (table, PARTITIONS)
        )
        assert done.status == "success", done
        if replevel:
            done = cluster.cmd("select shardman.set_replevel(%s, %s)", (table, replevel))
            assert done.status == "done", done
    groups = []
    with cluster.connect(1) as node:
        for k in range(PARTITIONS):
            rows = node.execute(f"select id from accounts_{k} order by id".encode()).fetchall()
            groups.append([int(r[0]) for r in rows])
    return PartitionBank("accounts", groups)


class Chaos:
    """Faults and moves at random until the time is over."""

    def __init__(self, cluster: Cluster, seed: int, report: Report, replevel: int) -> None:
        self._cluster = cluster
        self._replevel = replevel
        self._rng = random.Random(seed)
        self._report = report
        self._moves: list[int] = []
        self._victims: list[str] = []

    def run(self, seconds: float, every: float) -> None:
        """Runs for so long; a fault after each `every` seconds on the average."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._move()
            time.sleep(self._rng.uniform(0.5, 1.5) * every / 2)
            self._move()
            time.sleep(self._rng.uniform(0.5, 1.5) * every / 2)
            self._fault()

    def _move(self) -> None:
        part = f"{self._rng.choice(('accounts', 'marks'))}_{self._rng.randrange(PARTITIONS)}"
        dest = self._rng.choice(sorted(self._cluster.worker_dsns))
        self._moves.append(self._cluster.submit("select shardman.move_part(%s, %s)", (part, dest)))

    def _fault(self) -> None:
        if not self._victims:
            kinds = (*VICTIMS, LONG) if self._replevel else VICTIMS
            self._victims = self._rng.sample(kinds, len(kinds))
        victim = self._victims.pop()
        self._report.faults[victim] = self._report.faults.get(victim, 0) + 1
        if victim == "shardlord":
            self._cluster.stop_lord(kill=True)
            self._cluster.start_lord()
            return
        workers = sorted(self._cluster.worker_dsns)
        node = LORD if victim == "lord's server" else self._rng.choice(workers)
        self._cluster.kill_node(node)
        time.sleep(LONG_S if victim == LONG else self._rng.uniform(0, 1))
        self._cluster.start_node(node)
        if victim == LONG:
            self._make_up()

    def _make_up(self) -> None:
        """Gives every partition its replicas again, and the node that is back its share."""
        level = "select shardman.set_replevel(%s, %s)"
        for table in ("accounts", "marks"):
            for command, arguments in (
                (level, (table, self._replevel)),
                ("select shardman.rebalance(%s)", (table,)),
            ):
                done = self._cluster.cmd(command, arguments, seconds=300)
                if done.status not in ("done", "canceled"):
                    self._report.wrong.append(f"{command} of {table}: {done}")

    def settle(self) -> None:
        """Waits until every move has ended. A failover cancels those that stand in its way."""
        for cmd in self._moves:
            done = self._cluster.wait(cmd, 120)
            self._report.moves[done.status] = self._report.moves.get(done.status, 0) + 1
            if done.status not in ("success", "failed", "canceled"):
                self._report.wrong.append(f"command {cmd} is {done}")


def judge(cluster: Cluster, load: Load, report: Report) -> None:
    """Compares what the clients were told with what is there, through every node."""
    report.acknowledged, report.retried = load.acknowledged, load.retried
    report.unknown = sum(t.unknown for t in load.tallies)
    report.refused = sum(t.refused for t in load.tallies)
    report.longest_s = load.longest_s
    report.wrong += load.errors
    told = {m for t in load.tallies for m in t.inserted}
    maybe = {m for t in load.tallies for m in t.maybe}
    for node in (0, *sorted(cluster.worker_dsns)):
        found = [int(r[0]) for r in cluster.sql(node, "select id from marks")]
        report.wrong += [f"node {node}: insert {m} was lost" for m in told - set(found)]
        report.wrong += [f"node {node}: {m} came from nowhere" for m in set(found) - told - maybe]
        if len(found) != len(set(found)):
            report.wrong.append(f"node {node}: inserts are doubled")
        ((count, balance, touched),) = cluster.sql(
            node, "select count(*), sum(balance), sum(touched) from accounts"
        )
        if (count, balance) != (SIZE, SIZE * 1000):
            report.wrong.append(f"node {node}: {count} accounts with {balance} in all")
        if not load.added <= touched <= load.added + report.unknown:
            report.wrong.append(
                f"node {node}: {touched} increments there, {load.added} acknowledged"
            )
    report.wrong += [str(f) for f in check(cluster.lord_dsn, data=True, patience=30)]


def soak(
    seconds: float, seed: int, workers: int = 3, every: float = 6.0, replevel: int = 0
) -> Report:
    """Runs the chaos on a cluster of its own.

    Args:
        seconds: how long.
        seed: of the dice.
        workers: of the cluster.
        every: seconds between two faults, on the average.
        replevel: replicas of each partition.
    """
    report = Report()
    cluster = Cluster(workers=workers)
    try:
        bank = prepare(cluster, replevel)
        work = [bank.increment, bank.transfer, bank.read_then_write, bank.look]
        dsns = list(cluster.worker_dsns.values())
        chaos = Chaos(cluster, seed, report, replevel)
        with Load(dsns, work, workers=8, marks="marks", reconnect=True) as load:
            chaos.run(seconds, every)
            chaos.settle()
        judge(cluster, load, report)
    finally:
        cluster.close()
    return report


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="Chaos on a local cluster, and what it lost.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--every", type=float, default=6.0, help="seconds between two faults")
    parser.add_argument("--replevel", type=int, default=0, help="replicas of each partition")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.minutes} minutes", flush=True)
    report = soak(args.minutes * 60, args.seed, args.workers, args.every, args.replevel)
    print("\n".join(report.lines()))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
