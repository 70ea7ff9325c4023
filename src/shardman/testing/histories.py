"""Histories of transactions that append to lists and read them, and what they must not show.

The rules are those of Elle (Kingsbury, Alvaro: "Elle: Inferring Isolation Anomalies from Experimental
Observations", VLDB 2020) for list-append: a list tells who wrote to its row in which order. Names of anomalies
are Adya's (1999). READ COMMITTED rules out G0, G1a, G1b and G1c; a snapshot of all nodes also half
transactions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from graphlib import CycleError, TopologicalSorter


class Outcome(Enum):
    """How a transaction ended, as its client knows it."""

    COMMITTED = auto()
    ABORTED = auto()
    UNKNOWN = auto()
    """COMMIT was sent, and its answer was an error, or none."""


@dataclass(frozen=True)
class Append:
    """One more value at the end of a list; no value is appended twice."""

    key: int
    value: int


@dataclass(frozen=True)
class Read:
    """What a list had."""

    key: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class Txn:
    """A transaction.

    Args:
        number: its own.
        snapshot: it read all nodes as one.
    """

    number: int
    ops: tuple[Append | Read, ...]
    outcome: Outcome
    snapshot: bool = False

    @property
    def appends(self) -> list[Append]:
        return [op for op in self.ops if isinstance(op, Append)]

    @property
    def reads(self) -> list[Read]:
        return [op for op in self.ops if isinstance(op, Read)]


def anomalies(history: Sequence[Txn], final: Mapping[int, tuple[int, ...]]) -> list[str]:
    """What a history shows that it must not.

    Args:
        final: the lists when all had ended.
    """
    writers = {a.value: t for t in history for a in t.appends}
    found = [*_lists(history, final, writers)]
    committed = [t for t in history if t.outcome is Outcome.COMMITTED]
    for each in committed:
        found += _reads(each, final, writers)
        if each.snapshot:
            found += _torn(each, writers)
    # Cycles say nothing where lists make no sense.
    return found or [*_cycles(committed, final, writers)]


def _lists(
    history: Sequence[Txn], final: Mapping[int, tuple[int, ...]], writers: Mapping[int, Txn]
) -> Iterator[str]:
    for key, values in final.items():
        if len({*values}) < len(values):
            yield f"doubled: the list {key} has a value twice: {values}"
        for value in values:
            if value not in writers:
                yield f"the list {key} has {value}, which nobody appended"
            elif writers[value].outcome is Outcome.ABORTED:
                yield f"G1a: the list {key} has {value} of a transaction that was aborted"
    for txn in history:
        there = [a.value in final.get(a.key, ()) for a in txn.appends]
        if txn.outcome is Outcome.COMMITTED and not all(there):
            yield f"lost: transaction {txn.number} was committed, and something of it is not there"
        elif txn.outcome is Outcome.UNKNOWN and any(there) and not all(there):
            yield f"torn: one part of transaction {txn.number} is there, another is not"


def _reads(
    txn: Txn, final: Mapping[int, tuple[int, ...]], writers: Mapping[int, Txn]
) -> Iterator[str]:
    for read in txn.reads:
        if final.get(read.key, ())[: len(read.values)] != read.values:
            yield f"G1a: transaction {txn.number} read {read.values} in {read.key}: never committed so"
            continue
        if not read.values or (writer := writers.get(read.values[-1])) in (None, txn):
            continue
        assert writer is not None
        if [a.value for a in writer.appends if a.key == read.key][-1] != read.values[-1]:
            yield f"G1b: transaction {txn.number} has read what transaction {writer.number} wrote on its way"


def _torn(txn: Txn, writers: Mapping[int, Txn]) -> Iterator[str]:
    seen = {r.key: {*r.values} for r in txn.reads}
    for writer in {writers[v].number: writers[v] for vs in seen.values() for v in vs}.values():
        there = [a.value in seen[a.key] for a in writer.appends if a.key in seen]
        if not all(there):
            yield f"torn: the snapshot {txn.number} has a part of transaction {writer.number}"


def _cycles(
    committed: Sequence[Txn], final: Mapping[int, tuple[int, ...]], writers: Mapping[int, Txn]
) -> Iterator[str]:
    """Of writes alone it is G0, of writes and reads G1c."""
    before: dict[int, set[int]] = {t.number: set() for t in writers.values()}
    for values in final.values():
        for one, other in itertools.pairwise(values):
            before[writers[other].number].add(writers[one].number)
    if found := _cycle("G0", before):
        yield found
        return
    for txn in committed:
        for read in txn.reads:
            if read.values:
                before.setdefault(txn.number, set()).add(writers[read.values[-1]].number)
    if found := _cycle("G1c", before):
        yield found


def _cycle(name: str, before: Mapping[int, set[int]]) -> str:
    try:
        TopologicalSorter({n: b - {n} for n, b in before.items()}).prepare()
    except CycleError as error:
        return f"{name}: these are each before the next: {error.args[1]}"
    return ""
