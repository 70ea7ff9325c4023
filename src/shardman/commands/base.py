"""What every command has in common: one file per verb, each pure.

A command reads its options, says what it needs to itself (`claims`), may ask for facts of single
servers (`survey`), and makes a plan of one consistent picture of the cluster. It does no I/O.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

from shardman.commands.arguments import Argument, Option, argument, arguments_of, decode, encode
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
        member: a node that does not know the cluster any more (somebody dropped the schema) ends the command
            with an error; otherwise it counts as one that cannot be reached.
    """

    key: str
    node: int
    sql: str
    params: Sequence[Any] = ()
    patience: float | None = None
    member: bool = True


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


class Command(ABC):
    """A verb with its arguments. A class of its own for each, made a frozen dataclass by `verb`."""

    #: In cmd_log, as the SQL function, as the method of the client, and with hyphens in the program.
    name: ClassVar[str]
    #: What it does, in one sentence for the program's help and the client's documentation.
    summary: ClassVar[str]
    #: Clients' writes wait for it: it goes before all others.
    urgent: ClassVar[bool] = False
    #: It writes down what DDL has made of a table; what failed over that DDL begins anew behind it.
    follows_ddl: ClassVar[bool] = False
    _arguments: ClassVar[tuple[Argument, ...]]

    @classmethod
    def arguments(cls) -> tuple[Argument, ...]:
        """What it is given, in order."""
        return cls._arguments

    @classmethod
    def from_options(cls, options: Iterable[Option]) -> Self:
        """Reads what was written to cmd_opts.

        Raises:
            UserError: it makes no sense.
        """
        return cls(**decode(cls.name, cls.arguments(), options))

    def options(self) -> dict[str, str | None]:
        """What is written to cmd_opts, by name."""
        return encode(self, self._arguments)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        """What it needs for itself."""
        return frozenset()

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """What it asks single nodes before planning."""
        return ()

    @abstractmethod
    def plan(self, facts: Facts) -> Plan:
        """Raises UserError when the cluster's state forbids the command."""


C = TypeVar("C", bound=Command)


@dataclass_transform(frozen_default=True, field_specifiers=(argument,))
def verb(cls: type[C]) -> type[C]:
    """Makes a class a verb: a frozen dataclass whose fields are its arguments.

    Raises:
        TypeError: it lacks a name, a summary, or the declaration of a field.
    """
    made = dataclass(frozen=True)(cls)
    if not (getattr(cls, "name", "") and getattr(cls, "summary", "")):
        raise TypeError(f"{cls.__name__} needs a name and a summary")
    made._arguments = arguments_of(made)  # noqa: SLF001  (this makes the class)
    return made
