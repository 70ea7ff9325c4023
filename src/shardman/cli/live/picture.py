"""What is known of a cluster at one moment, and how fast it changes. Asks nobody."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from shardman.metrics.catalog import METRICS, Kind
from shardman.metrics.node import Value
from shardman.nodes.status import Status

Labels = frozenset[tuple[str, str]]
Key = tuple[str, Labels]


@dataclass(frozen=True)
class Picture:
    """Everything that a view needs.

    Args:
        values: of metrics, without their prefix.
        rates: of counters, a second.
        status: the last page of `shardman status`; None before the first.
        commands: those that wait or run, then the last that ended; None where the lord does not answer.
        wrong: why there is no newer status.
    """

    values: Mapping[Key, float] = field(default_factory=dict)
    rates: Mapping[Key, float] = field(default_factory=dict)
    status: Status | None = None
    commands: tuple[Mapping[str, Any], ...] | None = None
    wrong: str | None = None

    def value(self, name: str, **labels: str) -> float | None:
        """One value; None where it is not known."""
        return self.values.get((name, frozenset(labels.items())))

    def rate(self, name: str, **labels: str) -> float | None:
        """The sum of the rates that have these labels; None where none is known yet."""
        return _sum(self._rates_of[name], labels)

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of the values that have these labels; None where there is none."""
        return _sum(self._values_of[name], labels)

    def most(self, name: str, **labels: str) -> float | None:
        """The greatest of them."""
        return max(_having(self._values_of[name], labels), default=None)

    def label(self, name: str, label: str, **labels: str) -> list[str]:
        """The values of a label, in their order, numbers as numbers."""
        found = {
            dict(have).get(label, "") for have, _ in self._values_of[name] if labels.items() <= have
        }
        return sorted(found, key=lambda x: (not x.isdigit(), int(x) if x.isdigit() else 0, x))

    @cached_property
    def _values_of(self) -> Mapping[str, list[tuple[Labels, float]]]:
        return _by_name(self.values)

    @cached_property
    def _rates_of(self) -> Mapping[str, list[tuple[Labels, float]]]:
        return _by_name(self.rates)


def _by_name(known: Mapping[Key, float]) -> Mapping[str, list[tuple[Labels, float]]]:
    found: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
    for (name, labels), value in known.items():
        found[name].append((labels, value))
    return found


def _having(known: Iterable[tuple[Labels, float]], labels: Mapping[str, str]) -> list[float]:
    return [value for have, value in known if labels.items() <= have]


def _sum(known: Iterable[tuple[Labels, float]], labels: Mapping[str, str]) -> float | None:
    found = _having(known, labels)
    return sum(found) if found else None


class Rates:
    """How fast counters go, from one answer of a node to its next."""

    def __init__(self) -> None:
        self._before: dict[Key, tuple[float, float]] = {}
        self._rates: dict[Key, float] = {}

    def follow(self, values: Mapping[Key, float], now: float) -> Mapping[Key, float]:
        """The rates of all counters.

        Args:
            now: a clock, in seconds.
        """
        self._rates = {k: r for k, r in self._rates.items() if k in values}
        self._before = {k: b for k, b in self._before.items() if k in values}
        for key, value in values.items():
            name, labels = key
            if METRICS[name].kind is not Kind.COUNTER:
                continue
            # What is asked less often has an age of its own.
            age = (
                "node_details_age_seconds"
                if name.startswith(("table", "part"))
                else "node_age_seconds"
            )
            at = now - values.get((age, frozenset(p for p in labels if p[0] == "node")), 0.0)
            then, count = self._before.get(key, (at, value))
            if at - then > 0.2 or key not in self._before:
                self._before[key] = at, value
                if at > then:
                    # A server that was started anew counts from 0.
                    self._rates[key] = max(0.0, value - count) / (at - then)
        return dict(self._rates)


def keyed(values: Iterable[Value]) -> dict[Key, float]:
    """Values by name and labels."""
    return {(v.name, frozenset(v.labels.items())): v.value for v in values}
