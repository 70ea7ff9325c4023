"""Chaos for as long as you like: ``python -m shardman.testing.soak --minutes 10 --replevel 1``.

Writers through every node, partitions moving, switching and being spread at random, and whatever can
happen to servers and to the wires between them (`shardman.testing.faults`). Also clients whose transactions are
on several nodes, and that are killed. At the end: the bank's total is what it was, every
acknowledged insert is there exactly once, increments were neither lost nor doubled, no transaction was torn,
and `shardman check --data` finds nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import LiteralString

import psycopg

from shardman.errors import UserError
from shardman.sql.loader import queries
from shardman.testing.cluster import LORD, Cluster
from shardman.testing.faults import Faults
from shardman.testing.load import Load
from shardman.testing.network import Network
from shardman.testing.partition_bank import RENEWED, SIZE, TABLES, prepare
from shardman.testing.purses import Purses
from shardman.testing.small_disk import NoDiskError, SmallDisk
from shardman.testing.soak_report import Event, Report, judge
from shardman.testing.soak_watch import Watch
from shardman.testing.waiting import eventually

PARTITIONS = 12

#: Room for the node whose disk is filled. Its WAL and what slots hold back must fit in when nobody fills it.
ROOM_MB = 1500
#: Clients whose transactions are on several nodes.
PURSE_CLIENTS = 4
#: Commands that may wait or run before another move is asked for: a queue of them would make faults rare.
AT_ONCE = 2
SETTINGS: dict[str, str | int] = {
    # Whole partitions are rewritten in one transaction: more than is decoded in memory.
    "logical_decoding_work_mem": "64kB",
    "max_wal_size": "256MB",
    # Enough for channels in two phases.
    "max_prepared_transactions": 64,
}


class Chaos:
    """Faults and moves at random until the time is over."""

    def __init__(
        self,
        net: Network,
        seed: int,
        report: Report,
        replevel: int,
        partitions: int,
        disk: SmallDisk | None,
        only: str,
    ) -> None:
        self._partitions = partitions
        self._cluster = net.cluster
        self._replevel = replevel
        self._rng = random.Random(seed)
        self.faults = Faults(net, self._rng, replevel, "accounts", disk)
        self._only = re.compile(only)
        self._report = report
        self._moves: list[int] = []
        self._bag: list[str] = []
        self._loads: list[float] = []

    def run(self, seconds: float, every: float) -> None:
        """Runs for so long; a fault after each `every` seconds on the average."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._loads.append(os.getloadavg()[0])
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
            if self._cluster.commands_left() >= AT_ONCE:
                return
            self._moves.append(self._cluster.submit(call, arguments))

    def _fault(self) -> None:
        """Each kind comes once in a round, in an order of its own."""
        kinds = {k: v for k, v in self.faults.kinds().items() if self._only.search(k)}
        if not self._bag:
            self._bag = self._rng.sample(sorted(kinds), len(kinds))
        kind = self._bag.pop()
        if self._replevel:
            self._whole()
        print(f"{time.strftime('%H:%M:%S')} {kind}", flush=True)
        self.faults.struck = []
        event = Event(kind, time.monotonic())
        self._report.events.append(event)
        try:
            kinds[kind]()
        except (psycopg.Error, AssertionError, UserError, OSError) as error:
            self._report.wrong.append(f"{kind}: {error}")
        event.ended, event.struck = time.monotonic(), tuple(self.faults.struck)

    def _whole(self, seconds: float = 240) -> None:
        """Until every partition has its replicas: more losses than replicas are no fair question."""
        try:
            eventually(
                "no partition lacks replicas",
                lambda: self._cluster.value(LORD, queries("soak")["missing"], (self._replevel,)),
                until=lambda missing: missing == 0,
                seconds=seconds,
                tolerate=psycopg.Error,
            )
        except AssertionError as late:
            self._report.wrong.append(str(late))

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
        self._report.machine = _machine(self._loads)


def soak(
    seconds: float,
    seed: int,
    workers: int = 3,
    every: float = 6.0,
    replevel: int = 0,
    partitions: int = PARTITIONS,
    only: str = "",
    logs: Path | None = None,
) -> Report:
    """Runs the chaos on a cluster of its own.

    Args:
        seconds: how long.
        seed: of the dice.
        workers: of the cluster.
        every: seconds between two faults, on the average.
        replevel: replicas of each partition.
        partitions: of each of two tables.
        only: kinds of faults, a regular expression that is found in their names.
        logs: a new directory that gets the logs of the servers and of the shardlord, and its journal.
    """
    report = Report()
    cluster = Cluster(workers=workers, bare=True, settings=SETTINGS)
    with closing(cluster), ExitStack() as stack:
        if logs is not None:
            stack.callback(_keep, cluster, logs)
        disk = _small_disk(cluster, stack, report)
        net = stack.enter_context(Network(cluster))
        cluster.sql(
            LORD,
            "insert into shardman.settings values ('rebuild_after', '3'), ('scrub_every', '5')",
        )
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
        nodes, dsns = list(cluster.worker_dsns), list(cluster.worker_dsns.values())
        purses = Purses(cluster, partitions, PURSE_CLIENTS, seed, replevel)
        chaos = Chaos(net, seed, report, replevel, partitions, disk, only)
        watch = Watch(cluster, replevel)
        with (
            watch.looking(),
            purses.transferring(),
            Load(dsns, work, workers=12, marks="marks", reconnect=True, pause=0.01) as load,
        ):
            chaos.run(seconds, every)
            chaos.settle()
        for event in report.events:
            event.whole_s = watch.whole_after(event.ended)
        report.attribute(load, nodes)
        report.looked = next(bank.looked) - 1
        judge(cluster, chaos.faults.nodes, load, SIZE + RENEWED + partitions, report)
        report.wrong += purses.wrong(chaos.faults.nodes)
        report.transfers, report.killed = purses.transfers, purses.killed
    return report


def _keep(cluster: Cluster, logs: Path) -> None:
    """The logs, and which step of which command took how long."""
    shutil.copytree(cluster.local.directory / "log", logs)
    with suppress(psycopg.Error):
        rows = cluster.sql(LORD, queries("soak")["journal"])
        (logs / "journal").write_text("".join(f"{row[0]}\n" for row in rows))


def _small_disk(cluster: Cluster, stack: ExitStack, report: Report) -> SmallDisk | None:
    """The last worker lies on a file system of its own, where that can be."""
    try:
        return stack.enter_context(SmallDisk(cluster, max(cluster.worker_dsns), ROOM_MB))
    except NoDiskError as error:
        report.skipped["disk full"] = str(error)
        return None


def _machine(loads: list[float]) -> str:
    """What it ran on."""
    return f"{os.cpu_count()} processors, load {min(loads):.1f} to {max(loads):.1f}"


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="Chaos on a local cluster, and what it lost.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--every", type=float, default=6.0, help="seconds between two faults")
    parser.add_argument("--replevel", type=int, default=0, help="replicas of each partition")
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="of each table")
    parser.add_argument(
        "--only", default="", help="faults whose names have this (regular expression)"
    )
    parser.add_argument("--logs", type=Path, help="a new directory for the logs")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.minutes} minutes", flush=True)
    report = soak(
        args.minutes * 60,
        args.seed,
        args.workers,
        args.every,
        args.replevel,
        args.partitions,
        args.only,
        args.logs,
    )
    print("\n".join(report.lines()))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
