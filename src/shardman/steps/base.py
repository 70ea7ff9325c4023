"""What a step is: it does something, and declares what everybody else must know about it.

A step is of the phase in which it stands. Before the switch it is a `PrepareStep`, or an `UndoableStep` when
it makes something that has to be taken back; in the transaction of the switch a `SwitchStep`; behind it a
`FinishStep`. Nothing about a step is guessed from the names of its arguments: it says itself what it works on
(`scope`), what it makes (`makes`) and with what it may run at the same time (`concurrent_with`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, Self, TypeVar, overload

from shardman.model.plan import Json, Phase, Step
from shardman.steps.run import Run
from shardman.steps.state import State

__all__ = ["FinishStep", "PrepareStep", "Run", "SwitchStep", "UndoableStep", "step"]


@dataclass(frozen=True)
class Scope:
    """What a step works on.

    Args:
        nodes: those it acts on and cannot do without. Not the lord's database, which every step may use; not
            a node of which it only takes what it can have.
        parts: partitions whose copies it changes or reads: no two commands do that at the same time.
    """

    nodes: frozenset[int] = frozenset()
    parts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, nodes: Iterable[int] = (), parts: Iterable[str] = ()) -> Self:
        return cls(frozenset(nodes), frozenset(parts))


@dataclass(frozen=True)
class Made:
    """What an undoable step makes.

    Args:
        what: the same text for the same thing.
        shared: its name bears no command's number, so another command may make, or have made, this very
            thing. Once a later command has, an older one does not take it away any more.
    """

    what: str
    shared: bool = False


#: Who waits for most steps.
NOBODY = "nobody"


class StepKind(ABC):
    """One kind of step. `do` looks before it acts: doing it twice is doing it once."""

    phase: ClassVar[Phase]
    #: Kinds of steps that may run while this one does: none needs what another makes, and none uses a session
    #: in which another holds a lock. After a crash they run one after the other.
    concurrent_with: ClassVar[frozenset[str]] = frozenset()
    #: For the tables in docs/commands: what stands after a crash in it, where that is not what it makes;
    leaves: ClassVar[str] = ""
    #: who waits as long as nobody goes on,
    waits: ClassVar[str] = NOBODY
    #: and behind the last step of which kind they do not any more;
    waits_until: ClassVar[str] = ""
    #: who puts it right, where that is not done as its base says.
    clears: ClassVar[str] = ""

    @abstractmethod
    def scope(self) -> Scope: ...

    def state(self) -> Sequence[State]:
        """What others have to know of this step; written down in one transaction with the plan."""
        return ()

    @abstractmethod
    async def do(self, run: Run) -> None: ...


@dataclass(frozen=True)
class PartBetween:
    """Of a step that works on a partition, on two nodes of its copies."""

    part: str
    src: int
    dest: int

    def scope(self) -> Scope:
        return Scope.of([self.src, self.dest], [self.part])


@dataclass(frozen=True)
class Together(PartBetween):
    """Of a step that works at once on partitions of colocated tables, which go together.

    Args:
        beside: the others than `part`.
    """

    beside: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[str]:
        return [self.part, *self.beside]

    def scope(self) -> Scope:
        return Scope.of([self.src, self.dest], self.parts)

    def named(self) -> str:
        """The partitions, for people."""
        return ", ".join(self.parts)


@dataclass(frozen=True)
class OfTable:
    """Of a step that works on a table where it is made a sharded one.

    Args:
        node: where it lies.
        places: the node of each partition, from partition 0; empty: all of them lie where it lies.
    """

    node: int
    relation: str
    definition: dict[str, Json]
    places: list[int] = field(default_factory=list)

    def scope(self) -> Scope:
        return Scope.of(self.nodes())

    def nodes(self) -> list[int]:
        """Those that take part: first the table's own, then the others that get partitions."""
        return [self.node, *sorted({*self.places} - {self.node})]

    def parts(self, node: int) -> list[int]:
        """Numbers of the partitions that a node gets."""
        return [k for k, place in enumerate(self.all_places()) if place == node]

    def all_places(self) -> list[int]:
        """The node of each partition."""
        return self.places or [self.node] * int(str(self.definition["partitions_count"]))


class PrepareStep(StepKind):
    """Before the switch. There is nothing to take back: it makes nothing, or what goes with the things of
    another step."""

    phase = "prepare"


class UndoableStep(PrepareStep):
    """Before the switch, and taken back when the command fails."""

    @abstractmethod
    def makes(self) -> Made: ...

    @abstractmethod
    async def undo(self, run: Run) -> None:
        """Takes back what `do` did or half did; idempotent as well."""


class SwitchStep(StepKind):
    """In the one transaction in the lord's database that decides: the point of no return."""

    phase = "switch"
    leaves = "all of the switch, or nothing"
    clears = "the next shardlord reads which of the two"


class FinishStep(StepKind):
    """Behind the switch, or of a command that has none: it only goes forward. What cannot be done now is
    done later, by the janitor."""

    phase = "finish"
    #: It is done also on a node that was removed from the cluster. Others are given up then.
    for_removed: ClassVar[bool] = False
    #: It does on each of its nodes what can be done there: one that is away does not put it off.
    each_by_itself: ClassVar[bool] = False
    #: It is done also while another command works on its partitions.
    unclaimed: ClassVar[bool] = False

    def needs(self) -> frozenset[int]:
        """The nodes without which it waits. Where it fails, later steps that need one of them wait too."""
        return frozenset() if self.each_by_itself else self.scope().nodes


class Written(Protocol):
    """A step as a plan or the journal has it."""

    @property
    def kind(self) -> str: ...
    @property
    def args(self) -> Mapping[str, Json]: ...


_registry: dict[str, type[StepKind]] = {}
S = TypeVar("S", bound=StepKind)


def step(kind: str) -> Callable[[type[S]], type[S]]:
    """Registers a (frozen data-) class as the step of this kind; its fields are the step's args."""

    def register(cls: type[S]) -> type[S]:
        if kind in _registry:
            raise ValueError(f"two steps of the kind {kind}")
        _registry[kind] = cls
        return cls

    return register


def kinds() -> Mapping[str, type[StepKind]]:
    """Every kind of step that is registered."""
    return dict(_registry)


@overload
def bind(phase: Literal["prepare"], written: Written) -> PrepareStep: ...
@overload
def bind(phase: Literal["switch"], written: Written) -> SwitchStep: ...
@overload
def bind(phase: Literal["finish"], written: Written) -> FinishStep: ...
@overload
def bind(phase: Phase, written: Written) -> StepKind: ...
def bind(phase: Phase, written: Written) -> StepKind:
    """The step that does what was planned.

    Args:
        phase: in which it stands.

    Raises:
        KeyError: there is no such kind.
        TypeError: the kind is none of this phase, or the args do not fit it.
    """
    cls = _registry[written.kind]
    if cls.phase != phase:
        raise TypeError(f"{written.kind} is a {cls.phase} step and cannot stand in {phase}")
    return cls(**written.args)


def concurrent(earlier: Step, later: Step) -> bool:
    """Whether two steps of a phase may run at the same time."""
    first, second = _registry[earlier.kind], _registry[later.kind]
    return earlier.kind in second.concurrent_with or later.kind in first.concurrent_with
