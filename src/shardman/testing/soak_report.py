"""What a soak test found: what clients were told, compared with what is there."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shardman.nodes.invariants import check
from shardman.testing.clocks import Clocked
from shardman.testing.cluster import Cluster
from shardman.testing.load import Load
from shardman.testing.partition_bank import BALANCE


@dataclass
class Event:
    """A fault.

    Args:
        struck: nodes whose own clients were meant.
        begun: on the clock of `time.monotonic`.
        whole_s: from its end until no partition lacked replicas.
        stuck_s: the longest that any other client had no answer.
        stuck_there_s: the longest that any client of a struck node had none.
    """

    kind: str
    begun: float
    ended: float = 0.0
    struck: tuple[int, ...] = ()
    whole_s: float | None = None
    stuck_s: float = 0.0
    stuck_there_s: float = 0.0


@dataclass
class Report:
    """What happened."""

    events: list[Event] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    moves: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    looked: int = 0
    retried: int = 0
    unknown: int = 0
    refused: int = 0
    longest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    clocked: list[Clocked] = field(default_factory=list)
    transfers: int = 0
    killed: int = 0

    def lines(self) -> Iterator[str]:
        """The report, for a person."""
        yield f"machine             {self.machine}"
        yield f"faults              {len(self.events)}"
        yield from self._kinds()
        yield from (f"left out            {kind}: {why}" for kind, why in self.skipped.items())
        yield f"moves               {sum(self.moves.values())} {self.moves}"
        yield f"acknowledged        {self.acknowledged}"
        if self.transfers:
            yield f"over nodes          {self.transfers} transactions of clients, {self.killed} clients killed"
        yield f"partitions' money   counted {self.looked} times meanwhile"
        yield from self._times()
        yield f"serialization retry {self.retried}"
        yield f"outcome unknown     {self.unknown} (connections lost to kills)"
        yield f"not begun           {self.refused} (a server was down)"
        yield f"longest outage      {self.longest_s:.2f} s"
        yield from self._longest()
        yield "lost 0, doubled 0" if not self.wrong else "WRONG:"
        yield from self.wrong

    def _kinds(self) -> Iterator[str]:
        """A line for each kind of fault."""
        yield f"{'':36}   n  a client stuck: elsewhere, there  whole after: median, worst"
        for kind in sorted({e.kind for e in self.events}):
            events = [e for e in self.events if e.kind == kind]
            whole = [e.whole_s for e in events if e.whole_s is not None] or [0.0]
            yield (
                f"  {kind:36}{len(events):3} {max(e.stuck_s for e in events):14.1f} s"
                f" {max(e.stuck_there_s for e in events):10.1f} s"
                f" {statistics.median(whole):14.1f} s {max(whole):6.1f} s"
            )

    def _longest(self) -> Iterator[str]:
        """The worst of all."""
        if not self.events:
            return
        elsewhere = max(self.events, key=lambda e: e.stuck_s)
        there = max(self.events, key=lambda e: e.stuck_there_s)
        whole = max(self.events, key=lambda e: e.whole_s or 0.0)
        yield f"longest stuck       {elsewhere.stuck_s:.2f} s ({elsewhere.kind})"
        yield f"  of a node struck  {there.stuck_there_s:.2f} s ({there.kind})"
        yield f"copies whole again  at the latest after {whole.whole_s or 0.0:.1f} s ({whole.kind})"

    def attribute(self, load: Load, nodes: Sequence[int]) -> None:
        """Counts each long wait of a client for the fault that came last before its end.

        Args:
            nodes: of the clients, which go round and round.
        """
        for number, tally in enumerate(load.tallies):
            node = nodes[number % len(nodes)]
            for wait in tally.slow:
                before = [e for e in self.events if e.begun < wait.begun + wait.seconds]
                if not before:
                    continue
                if node in before[-1].struck:
                    before[-1].stuck_there_s = max(before[-1].stuck_there_s, wait.seconds)
                else:
                    before[-1].stuck_s = max(before[-1].stuck_s, wait.seconds)

    def _times(self) -> Iterator[str]:
        """From a fault to the first acknowledged write to what it struck."""
        for fault in sorted({c.fault for c in self.clocked}):
            taken = [c.seconds for c in self.clocked if c.fault == fault and c.seconds is not None]
            if taken:
                yield (
                    f"first write after   {fault}: median {statistics.median(taken):.1f} s,"
                    f" worst {max(taken):.1f} s of {len(taken)}"
                )


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
