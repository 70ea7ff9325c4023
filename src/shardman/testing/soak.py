"""Chaos for as long as you like: ``python -m shardman.testing.soak --minutes 10 --replevel 1``.

Writers through every node, partitions moving, switching and being spread at random, and whatever can
happen to servers and to the wires between them (`shardman.testing.faults`). At the end: the bank's total
is what it was, every acknowledged insert is there exactly once, increments were neither lost nor
doubled, and `shardman check --data` finds nothing.

Money moves only between accounts of one partition: a transaction over two nodes is not atomic when one
of them is killed in the middle of its commit (docs/weak-sides.md), one within a partition is.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import LiteralString

import psycopg

from shardman.pg.invariants import check
from shardman.testing.cluster import LORD, Cluster
from shardman.testing.faults import Clocked, Faults
from shardman.testing.load import Bank, Load
from shardman.testing.network import Network

SIZE = 3000
#: Accounts that are deleted and opened again: whoever wants to change one meanwhile would not find it.
RENEWED = 60
PARTITIONS = 12
TABLES = ("accounts", "marks")

BALANCE = 1000
#: Ids of one partition that no account has.
TWO_IDS = """
select id from generate_series(10000, 1000000) id
 where satisfies_hash_partition('accounts'::regclass, %(modulus)s, %(remainder)s, id)
 limit 2
"""
#: Partitions with fewer replicas that follow than asked for.
MISSING = """
select count(*) from shardman.partitions p
 where p.prv is null
   and %s > (select count(*) from shardman.partitions r
              where r.part_name = p.part_name and r.prv is not null and r.stale_since is null)
"""


@dataclass
class Report:
    """What happened."""

    faults: dict[str, int] = field(default_factory=dict)
    moves: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    looked: int = 0
    retried: int = 0
    unknown: int = 0
    refused: int = 0
    longest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    clocked: list[Clocked] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The report, for a person."""
        yield f"faults              {sum(self.faults.values())} {self.faults}"
        yield f"moves               {sum(self.moves.values())} {self.moves}"
        yield f"acknowledged        {self.acknowledged}"
        yield f"partitions' money   counted {self.looked} times meanwhile"
        yield from self._times()
        yield f"serialization retry {self.retried}"
        yield f"outcome unknown     {self.unknown} (connections lost to kills)"
        yield f"not begun           {self.refused} (a server was down)"
        yield f"longest outage      {self.longest_s:.2f} s"
        yield "lost 0, doubled 0" if not self.wrong else "WRONG:"
        yield from self.wrong

    def _times(self) -> Iterator[str]:
        """From a fault to the first acknowledged write to what it struck."""
        for fault in sorted({c.fault for c in self.clocked}):
            taken = [c.seconds for c in self.clocked if c.fault == fault and c.seconds is not None]
            if taken:
                yield (
                    f"first write after   {fault}: median {statistics.median(taken):.1f} s,"
                    f" worst {max(taken):.1f} s of {len(taken)}"
                )


class PartitionBank(Bank):
    """Transfers within one partition: its accounts and their balance are the same at every look.

    Args:
        groups: the ids of the accounts of each partition.
        nomads: of each partition one account more, which changes its id from one of two to the other.
    """

    def __init__(
        self, accounts: str, groups: list[list[int]], nomads: list[tuple[int, int]]
    ) -> None:
        super().__init__(accounts, SIZE)
        self._groups = groups
        self._nomads = nomads
        #: How often the balance of a partition was found right.
        self.looked = count(1)

    def transfer(self, conn: psycopg.Connection[tuple[object, ...]], rng: random.Random) -> int:
        group = [i for i in rng.choice(self._groups) if i <= SIZE]
        one, other = sorted(rng.sample(group, 2))
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

    def renew(self, conn: psycopg.Connection[tuple[object, ...]], rng: random.Random) -> int:
        """Deletes an account and opens it again as it was."""
        with conn.transaction():
            row = conn.execute(
                f"delete from {self.accounts} where id = %s returning id, balance, touched, filler",
                (SIZE + rng.randint(1, RENEWED),),
            ).fetchone()
            if row is None:  # Somebody else is renewing it.
                return 0
            conn.execute(f"insert into {self.accounts} values (%s, %s, %s, %s)", row)
        return 0

    def swell(self, conn: psycopg.Connection[tuple[object, ...]], rng: random.Random) -> int:
        """Changes every row of a partition, in one large transaction."""
        k = rng.randrange(len(self._groups))
        time.sleep(rng.random())
        conn.execute(f"update {self.accounts}_{k} set filler = repeat(md5(random()::text), 20)")
        return 0

    def look(self, conn: psycopg.Connection[tuple[object, ...]], rng: random.Random) -> int:
        """Counts one partition and its money: a reader, through whatever node."""
        k = rng.randrange(len(self._groups))
        row = conn.execute(
            f"select count(*), sum(balance)::bigint from {self.accounts}_{k}"
        ).fetchone()
        there = len(self._groups[k]) + 1
        if row != (there, there * BALANCE):
            raise AssertionError(f"{self.accounts}_{k} has {row}, not {there} x {BALANCE}")
        next(self.looked)
        return 0

    def wander(self, conn: psycopg.Connection[tuple[object, ...]], rng: random.Random) -> int:
        """Changes the key of an account."""
        k = rng.randrange(len(self._nomads))
        one, other = self._nomads[k]
        done = conn.execute(
            f"update {self.accounts}_{k} set id = %s - id where id in (%s, %s)",
            (one + other, one, other),
        )
        if done.rowcount != 1:
            raise AssertionError(f"{done.rowcount} accounts {one} or {other}")
        return 0


def prepare(cluster: Cluster, replevel: int, partitions: int) -> PartitionBank:
    """Accounts and marks, spread over all workers, each partition with so many replicas."""
    cluster.sql(
        1,
        "create table accounts (id int primary key, balance bigint not null default 1000,"
        " touched bigint not null default 0, filler text not null default '')",
    )
    cluster.sql(1, "create table marks (id bigint primary key)")
    cluster.sql(1, "insert into accounts (id) select generate_series(1, %s)", (SIZE + RENEWED,))
    for table in TABLES:
        done = cluster.cmd(
            "select shardman.create_hash_partitions(1, %s, 'id', %s)", (table, partitions)
        )
        assert done.status == "success", done
        if replevel:
            done = cluster.cmd("select shardman.set_replevel(%s, %s)", (table, replevel))
            assert done.status == "done", done
    groups, nomads = [], []
    with cluster.connect(1) as node:
        for k in range(partitions):
            rows = node.execute(f"select id from accounts_{k} order by id".encode()).fetchall()
            groups.append([int(r[0]) for r in rows])
            one, other = (
                r[0] for r in node.execute(TWO_IDS, {"modulus": partitions, "remainder": k})
            )
            node.execute("insert into accounts (id) values (%s)", (one,))
            nomads.append((one, other))
    return PartitionBank("accounts", groups, nomads)


class Chaos:
    """Faults and moves at random until the time is over."""

    def __init__(
        self, net: Network, seed: int, report: Report, replevel: int, partitions: int
    ) -> None:
        self._partitions = partitions
        self._cluster = net.cluster
        self._replevel = replevel
        self._rng = random.Random(seed)
        self.faults = Faults(net, self._rng, replevel, "accounts")
        self._report = report
        self._moves: list[int] = []
        self._bag: list[str] = []

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
        """Something that changes where copies are; what is impossible just now fails, and that is right."""
        table = self._rng.choice(TABLES)
        part = f"{table}_{self._rng.randrange(self._partitions)}"
        dest = self._rng.choice(self.faults.nodes)
        commands: list[tuple[LiteralString, tuple[object, ...]]] = [
            ("select shardman.move_part(%s, %s)", (part, dest))
        ] * 3
        if self._replevel:
            commands += [
                ("select shardman.switch_primary(%s, %s)", (part, dest)),
                ("select shardman.create_replica(%s, %s)", (part, dest)),
                ("select shardman.rebalance(%s)", (table,)),
                ("select shardman.set_replevel(%s, %s)", (table, self._replevel)),
            ]
        call, arguments = self._rng.choice(commands)
        # The lord's server may be down, or coming up.
        with suppress(psycopg.Error):
            self._moves.append(self._cluster.submit(call, arguments))

    def _fault(self) -> None:
        """Each kind comes once in a round, in an order of its own."""
        kinds = self.faults.kinds()
        if not self._bag:
            self._bag = self._rng.sample(sorted(kinds), len(kinds))
        kind = self._bag.pop()
        if self._replevel:
            self._whole()
        self._report.faults[kind] = self._report.faults.get(kind, 0) + 1
        print(f"{time.strftime('%H:%M:%S')} {kind}", flush=True)
        kinds[kind]()

    def _whole(self, seconds: float = 120) -> None:
        """Until every partition has its replicas: more losses than replicas are no fair question."""
        until = time.monotonic() + seconds
        missing: object = "?"
        while missing and time.monotonic() < until:
            with suppress(psycopg.Error):
                missing = self._cluster.value(LORD, MISSING, (self._replevel,))
            time.sleep(0.2)
        if missing:
            self._report.wrong.append(f"{missing} partitions do not get their replicas")

    def settle(self) -> None:
        """Waits until every move has ended. A failover cancels those that stand in its way."""
        self.faults.end()
        for cmd in self._moves:
            done = self._cluster.wait(cmd, 120)
            self._report.moves[done.status] = self._report.moves.get(done.status, 0) + 1
            if done.status in ("waiting", "in progress"):
                self._report.wrong.append(f"command {cmd} is {done}")
        if self._replevel:
            self._whole()
        self._report.clocked = self.faults.clocked


def judge(
    cluster: Cluster, nodes: Sequence[int], load: Load, accounts: int, report: Report
) -> None:
    """Compares what the clients were told with what is there, through every node."""
    nodes = (0, *nodes)
    report.acknowledged, report.retried = load.acknowledged, load.retried
    report.unknown = sum(t.unknown for t in load.tallies)
    report.refused = sum(t.refused for t in load.tallies)
    report.longest_s = load.longest_s
    report.wrong += load.errors
    # A node that is back serves its old primaries until it has learnt of their heirs.
    report.wrong += [str(f) for f in check(cluster.lord_dsn, patience=30)]
    told = {m for t in load.tallies for m in t.inserted}
    maybe = {m for t in load.tallies for m in t.maybe}
    for node in nodes:
        found = [int(r[0]) for r in cluster.sql(node, "select id from marks")]
        report.wrong += [f"node {node}: insert {m} was lost" for m in told - set(found)]
        report.wrong += [f"node {node}: {m} came from nowhere" for m in set(found) - told - maybe]
        if len(found) != len(set(found)):
            report.wrong.append(f"node {node}: inserts are doubled")
        ((rows, balance, touched),) = cluster.sql(
            node, "select count(*), sum(balance), sum(touched) from accounts"
        )
        if (rows, balance) != (accounts, accounts * BALANCE):
            report.wrong.append(f"node {node}: {rows} accounts with {balance} in all")
        if not load.added <= touched <= load.added + report.unknown:
            report.wrong.append(
                f"node {node}: {touched} increments there, {load.added} acknowledged"
            )
    report.wrong += [str(f) for f in check(cluster.lord_dsn, data=True, patience=30)]


def soak(
    seconds: float,
    seed: int,
    workers: int = 3,
    every: float = 6.0,
    replevel: int = 0,
    partitions: int = PARTITIONS,
) -> Report:
    """Runs the chaos on a cluster of its own.

    Args:
        seconds: how long.
        seed: of the dice.
        workers: of the cluster.
        every: seconds between two faults, on the average.
        replevel: replicas of each partition.
        partitions: of each of two tables.
    """
    report = Report()
    # Whole partitions are rewritten in one transaction: more than is decoded in memory.
    cluster = Cluster(workers=workers, bare=True, settings={"logical_decoding_work_mem": "64kB"})
    with closing(cluster), Network(cluster) as net:
        cluster.sql(LORD, "insert into shardman.settings values ('rebuild_after', '3')")
        bank = prepare(cluster, replevel, partitions)
        work = [
            bank.increment,
            bank.transfer,
            bank.read_then_write,
            bank.look,
            bank.renew,
            bank.swell,
            bank.wander,
        ]
        dsns = list(cluster.worker_dsns.values())
        chaos = Chaos(net, seed, report, replevel, partitions)
        with Load(dsns, work, workers=12, marks="marks", reconnect=True, pause=0.01) as load:
            chaos.run(seconds, every)
            chaos.settle()
        report.looked = next(bank.looked) - 1
        judge(cluster, chaos.faults.nodes, load, SIZE + RENEWED + partitions, report)
    return report


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="Chaos on a local cluster, and what it lost.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--every", type=float, default=6.0, help="seconds between two faults")
    parser.add_argument("--replevel", type=int, default=0, help="replicas of each partition")
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="of each table")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.minutes} minutes", flush=True)
    report = soak(
        args.minutes * 60, args.seed, args.workers, args.every, args.replevel, args.partitions
    )
    print("\n".join(report.lines()))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
