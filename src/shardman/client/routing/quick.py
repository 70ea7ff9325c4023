"""Statements whose keys are parameters, remembered with the texts for each partition."""

from __future__ import annotations

from shardman.client.routing.placeholders import Params
from shardman.client.routing.plan import Plan, Scope
from shardman.client.routing.values import INTEGER_TYPES, Unclear

_KEYS = 100_000
#: What can be looked up without being mistaken for a value of another type.
_PLAIN = frozenset((*INTEGER_TYPES, str))


def is_quick(plan: Plan) -> bool:
    """Whether a plan is that simple."""
    return (
        plan.scope is Scope.OWNER
        and len(plan.targets) == 1
        and bool(plan.targets[0].names)
        and not plan.own_types
    )


class Quick:
    """One of them."""

    __slots__ = ("_names", "_numbers", "_places", "_target", "writes")

    def __init__(self, plan: Plan) -> None:
        self._target = plan.targets[0]
        self._names = self._target.names
        parts = self._target.table.parts
        self._places = [(plan.rewritten((n,)), p.node) for n, p in enumerate(parts)]
        self._numbers: dict[int | str, int] = {}
        self.writes = not plan.reads

    def place(self, params: Params) -> tuple[bytes, str] | None:
        """The text and the node for these parameters; None when that is not simple."""
        try:
            values = [params[n] for n in self._names]  # type: ignore[index]
        except (LookupError, TypeError):
            return None
        if not _PLAIN.issuperset(map(type, values)):
            return None
        found = set(map(self._numbers.get, values))
        if None in found:
            try:
                found = {self._number(v) for v in values}
            except Unclear:
                return None
        if len(found) != 1:
            return None
        return self._places[found.pop()]  # type: ignore[index]

    def _number(self, value: int | str) -> int:
        number = self._target.table.number((value,), stored=self._target.stored)
        if len(self._numbers) >= _KEYS:
            self._numbers.clear()
        self._numbers[value] = number
        return number
