"""What is known of a statement, whatever its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cached_property
from itertools import product
from typing import Any

from shardman.client.held import Said
from shardman.client.routing.asked import Question
from shardman.client.routing.parts import Split
from shardman.client.routing.picture import Table
from shardman.client.routing.placeholders import Name, Params
from shardman.client.routing.values import Unclear, family

#: More keys than these are no statement for one partition.
_KEYS = 10_000


class Scope(Enum):
    """Where a statement may run."""

    OWNER = auto()
    """On the owner of the one partition that it touches; else as ANYWHERE."""
    ANYWHERE = auto()
    """On any node, as it stands: it touches nothing but sharded and shared tables."""
    HERE = auto()
    """On the node that was connected to: something in it may be of that node, or is not understood."""
    TRANSACTION = auto()
    """COMMIT and the like, as a text: where the transaction is."""


@dataclass(frozen=True)
class Literal:
    """A value in the text."""

    value: Any


@dataclass(frozen=True)
class Parameter:
    """A parameter; ``many``: each element of it, as in = ANY."""

    name: Name
    many: bool = False


@dataclass(frozen=True)
class Typed:
    """One of them, cast to a type: it is compared as that."""

    of: Literal | Parameter
    type: str


Source = Literal | Parameter | Typed


@dataclass(frozen=True)
class Target:
    """A sharded table in a statement.

    Args:
        span: of bytes, in the text as it was, where its name stands.
        alias: what it is called in the rest of the statement; empty when the text says so itself.
        keys: tuples of what each column of the key may be: a row of VALUES each, or one for a condition.
        stored: these are values of new rows.
        zipped: each column of the key is a list, a row of whose elements is a key.
        everywhere: it is about all partitions, and no key is named.
        data: the rows' table itself is named, for a unique index that only that one has.
    """

    table: Table
    span: tuple[int, int]
    alias: str
    keys: tuple[tuple[tuple[Source, ...], ...], ...]
    stored: bool
    data: bool
    zipped: bool = False
    everywhere: bool = False

    @cached_property
    def names(self) -> tuple[Name, ...]:
        """The parameters that are the key of each row, in most statements; empty in others."""
        found: list[Name] = []
        for key in self.keys:
            source = key[0][0]
            if (
                len(key) != 1
                or len(key[0]) != 1
                or not isinstance(source, Parameter)
                or source.many
            ):
                return ()
            found.append(source.name)
        return tuple(found)

    def rows(self, params: Params) -> list[int]:
        """The partition of each row of VALUES.

        Raises:
            Unclear: of one of them nobody can tell.
        """
        if self.zipped:
            return self._zipped(params)
        found = []
        for key in self.keys:
            numbers = replace(self, keys=(key,)).numbers(params)
            if len(numbers) != 1:
                raise Unclear("a row with several keys")
            found.append(numbers.pop())
        return found

    def _zipped(self, params: Params) -> list[int]:
        ((key),) = self.keys
        columns = [
            list(_values(sources, c.type, params))
            for sources, c in zip(key, self.table.key, strict=True)
        ]
        if len(set(map(len, columns))) != 1 or len(columns[0]) > _KEYS:
            raise Unclear("lists of different lengths, or long ones")
        return [self.table.number(v, stored=self.stored) for v in zip(*columns, strict=True)]

    def lists(self, params: Params) -> dict[int, list[Any]]:
        """The values of a key of one column, by their partitions.

        Raises:
            Unclear: of one of them nobody can tell.
        """
        ((column,),) = self.keys
        found: dict[int, list[Any]] = {}
        for value in _values(column, self.table.key[0].type, params):
            number = self.table.number((value,), stored=self.stored)
            found.setdefault(number, []).append(value)
        return found

    def numbers(self, params: Params) -> set[int]:
        """The partitions of its keys.

        Raises:
            Unclear: of one of them nobody can tell.
        """
        if self.everywhere:
            return set(range(len(self.table.parts)))
        if self.zipped:
            return set(self._zipped(params))
        found: set[int] = set()
        count = 0
        for key in self.keys:
            columns = [
                list(_values(sources, c.type, params))
                for sources, c in zip(key, self.table.key, strict=True)
            ]
            for values in product(*columns):
                count += 1
                if count > _KEYS:
                    raise Unclear("too many keys")
                found.add(self.table.number(values, stored=self.stored))
        return found


def _is_list(source: Source) -> bool:
    inner = source.of if isinstance(source, Typed) else source
    return isinstance(inner, Parameter) and inner.many


def _values(sources: Sequence[Source], type_: str, params: Params) -> Iterator[Any]:
    for source in sources:
        inner: Source = source
        if isinstance(inner, Typed):
            if family(inner.type) != family(type_):
                raise Unclear(f"the key has the type {type_} and is compared as {inner.type}")
            inner = inner.of
        if isinstance(inner, Literal):
            yield inner.value
        elif isinstance(inner, Parameter):
            value = _parameter(inner.name, params)
            if not inner.many:
                yield value
            elif type(value) in (list, tuple) and value:
                yield from value
            else:
                raise Unclear("ANY of what is no list, or an empty one")


def _parameter(name: Name, params: Params) -> Any:
    try:
        return params[name]  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        raise Unclear("a parameter is missing") from None


@dataclass(frozen=True)
class Plan:
    """A statement, read.

    Args:
        scope: where it may run.
        reason: why, for `explain_route`.
        text: as it was.
        targets: the sharded tables in it, when `scope` is OWNER.
        guards: what is added to conditions, by the byte before which it stands.
        reads: it changes nothing.
        pins: the session is another one behind it (SET, temporary tables): from then on all else
            runs there too. "transaction": only until the transaction ends.
        frees: nothing of what was set for the session is left behind it.
        alters: tables may be others behind it.
        sharded: a sharded table is in it.
        own_types: one of its tables has a column of a type that is not PostgreSQL's own.
        said: what it says to a transaction on all of its nodes.
        question: what nodes can be asked, each about its partitions; None where it is not split.
        undivided: why it is not.
        split: how a statement over several partitions is split; None where it is not.
        current_of: the cursor whose row it is about.
        ends: the transaction that is open, by commit or rollback.
        listens: whether to it from now on, or no more, and the channel; empty: to none any more.
        single: one statement, as far as can be told.
        notifies: it does nothing else.
    """

    scope: Scope
    reason: str
    text: bytes = b""
    with_parameters: bool = False
    targets: tuple[Target, ...] = ()
    guards: tuple[tuple[int, bytes], ...] = ()
    reads: bool = False
    pins: str = ""
    frees: bool = False
    alters: bool = False
    sharded: bool = False
    own_types: bool = False
    said: Said | None = None
    question: Question | None = None
    undivided: str = ""
    split: Split | None = None
    current_of: str = ""
    ends: str = ""
    listens: tuple[bool, str] | None = None
    single: bool = True
    notifies: bool = False
    texts: dict[tuple[int, ...], bytes] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether it needs no other node, wherever it runs."""
        return self.scope is Scope.ANYWHERE and self.reads and not self.sharded

    @cached_property
    def names_several(self) -> bool:
        """Whether it may be about several keys of a table."""
        return any(
            t.everywhere
            or len(t.keys) != 1
            or any(len(c) != 1 or _is_list(c[0]) for c in t.keys[0])
            for t in self.targets
        )

    def rewritten(self, numbers: tuple[int, ...]) -> bytes:
        """The text with the partitions' names, one number for each target."""
        found = self.texts.get(numbers)
        if found is None:
            found = self._rewrite(numbers)
            if len(self.texts) > 5000:
                self.texts.clear()
            self.texts[numbers] = found
        return found

    def part(self, number: int, kept: Sequence[int]) -> bytes:
        """The text of a part of a split statement; ``kept``: the rows of VALUES that are in it."""
        assert self.split is not None
        rows = self.split.rows
        if not rows:
            return self.rewritten((number,))
        text = b", ".join(self.text[rows[i].start : rows[i].end] for i in kept)
        return self._rewrite((number,), [(rows[0].start, rows[-1].end, text)])

    def _rewrite(
        self, numbers: tuple[int, ...], more: Sequence[tuple[int, int, bytes]] = ()
    ) -> bytes:
        changes = [*more, *((at, at, text) for at, text in self.guards)]
        for target, number in zip(self.targets, numbers, strict=True):
            part = target.table.parts[number]
            name = part.data if target.data else part.name
            if self.with_parameters:
                name = name.replace("%", "%%")
            changes.append((*target.span, (name + target.alias).encode()))
        pieces = []
        done = 0
        for start, end, text in sorted(changes):
            pieces += [self.text[done:start], text]
            done = end
        return b"".join([*pieces, self.text[done:]])
