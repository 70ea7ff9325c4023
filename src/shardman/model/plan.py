"""What a command is going to do, as data.

A command is a saga: *prepare* (steps that can each be undone), *switch* (one transaction in the lord's
database, the point of no return) and *finish* (steps that only go forward). A plan is printed by a dry
run, counted by the progress bar, enumerated by the crash tests and written to the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Phase = Literal["prepare", "switch", "finish"]


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Args:
        kind: the name under which `shardman.steps` registers what does (and undoes) it.
        title: what a person reads in the progress bar, e.g. ``copy acc_3 from node 1 to node 2``.
        args: what the step needs; must survive JSON, and must not contain secrets.
    """

    kind: str
    title: str
    args: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The steps of a command, in order.

    Args:
        prepare: idempotent, undone in reverse order when the command fails or is cancelled.
        switch: metadata steps, all in the one transaction that decides; empty when nothing is decided.
        finish: idempotent, repeated until they succeed, also by a later shardlord.
        atomic: false for a command that ends as ``done``.
        warnings: what the user should know, part of the command's result.
        data: the same for programs: what of the result is known already.
    """

    prepare: tuple[Step, ...] = ()
    switch: tuple[Step, ...] = ()
    finish: tuple[Step, ...] = ()
    atomic: bool = True
    warnings: tuple[str, ...] = ()
    data: Mapping[str, Json] = field(default_factory=dict)

    def steps(self) -> Iterator[tuple[int, Phase, Step]]:
        """Every step with its number (from 1) and phase."""
        n = 0
        phases: tuple[tuple[Phase, tuple[Step, ...]], ...] = (
            ("prepare", self.prepare),
            ("switch", self.switch),
            ("finish", self.finish),
        )
        for phase, steps in phases:
            for step in steps:
                n += 1
                yield n, phase, step

    def groups(
        self, phase: Phase, concurrent: Callable[[Step, Step], bool]
    ) -> list[list[tuple[int, Step]]]:
        """The numbered steps of a phase, those of a group at the same time.

        Args:
            concurrent: whether a step may run while an earlier one does.
        """
        groups: list[list[tuple[int, Step]]] = []
        for n, of, step in self.steps():
            if of != phase:
                continue
            if groups and all(concurrent(earlier, step) for _, earlier in groups[-1]):
                groups[-1].append((n, step))
            else:
                groups.append([(n, step)])
        return groups

    def __len__(self) -> int:
        return len(self.prepare) + len(self.switch) + len(self.finish)
