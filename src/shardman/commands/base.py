"""What every command has in common: one file per verb, each pure.

A command reads its options, says what it must not run beside (`claims`), may ask for facts of single
servers (`survey`), and makes a plan of one consistent picture of the cluster. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from shardman.model.cluster import Cluster
from shardman.model.plan import Plan


@dataclass(frozen=True)
class Claim:
    """What a command needs for itself: two commands with a common name run one after the other
    unless both claim it shared."""

    name: str
    shared: bool = False


@dataclass(frozen=True)
class Question:
    """A question to one node before planning. The answer is one JSON value.

    Args:
        key: under which the plan finds the answer.
        node: whom to ask.
        sql: a select of one value; parameters as psycopg writes them.
        patience: in seconds; who has not answered by then cannot be reached. None: as long as a
            connection may take.
    """

    key: str
    node: int
    sql: str
    params: Sequence[Any] = ()
    patience: float | None = None


@dataclass(frozen=True)
class Facts:
    """What a plan is made of beside the command's options.

    Args:
        cluster: the metadata.
        cmd_id: of the command; in the names of whatever it makes on its way. 0 in a dry run.
        answers: to the survey's questions, by key.
    """

    cluster: Cluster
    cmd_id: int = 0
    answers: Mapping[str, Any] = field(default_factory=dict)


class Command(Protocol):
    """A verb with its arguments."""

    name: ClassVar[str]

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        """Reads the options as the SQL function of the same name wrote them to cmd_opts."""
        ...

    def claims(self, cluster: Cluster) -> frozenset[Claim]: ...

    def survey(self, cluster: Cluster) -> tuple[Question, ...]: ...

    def plan(self, facts: Facts) -> Plan:
        """Raises UserError when the cluster's state forbids the command."""
        ...
