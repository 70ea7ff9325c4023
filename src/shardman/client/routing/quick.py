"""Statements whose key is one parameter, remembered with the texts for each partition."""

from __future__ import annotations

from shardman.client.routing.plan import Params, Plan, Scope
from shardman.client.routing.values import Unclear

_KEYS = 100_000


def is_quick(plan: Plan) -> bool:
    """Whether a plan is that simple."""
    return (
        plan.scope is Scope.OWNER
        and len(plan.targets) == 1
        and plan.targets[0].simple is not None
        and not plan.own_types
    )


class Quick:
    """One of them."""

    __slots__ = ("_name", "_numbers", "_places", "_target")

    def __init__(self, plan: Plan) -> None:
        self._target = plan.targets[0]
        self._name = self._target.simple
        parts = self._target.table.parts
        self._places = [(plan.rewritten((n,)), p.node) for n, p in enumerate(parts)]
        self._numbers: dict[int | str, int] = {}

    def place(self, params: Params) -> tuple[bytes, str] | None:
        """The text and the node for these parameters; None when that is not simple."""
        try:
            value = params[self._name]  # type: ignore[index]
        except (LookupError, TypeError):
            return None
        if type(value) is not int and type(value) is not str:
            return None
        number = self._numbers.get(value)
        if number is None:
            try:
                number = self._target.table.number((value,), stored=self._target.stored)
            except Unclear:
                return None
            if len(self._numbers) >= _KEYS:
                self._numbers.clear()
            self._numbers[value] = number
        return self._places[number]
