"""What becomes of each table of an application, what is in the way, and in which order it is done: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from shardman.model.application import (
    PLAIN,
    SHARDED,
    SHARED,
    Application,
    ForeignKey,
    Key,
    Table,
)


@dataclass(frozen=True)
class Choice:
    """What becomes of a table.

    Args:
        how: `PLAIN`, `SHARED` or `SHARDED`.
        by: of a sharded one, by which columns or expression, as SQL writes them.
        colocate_with: the first table of the group that it is to lie with; None: it is that.
        why: for a person.
    """

    how: str
    by: str | None = None
    partitions: int | None = None
    colocate_with: str | None = None
    why: str = ""


@dataclass(frozen=True)
class Distribution:
    """What becomes of the tables of a node. Those that are not named stay as they are."""

    node: int
    choices: Mapping[str, Choice]

    def of(self, table: str) -> Choice:
        return self.choices.get(table, _LEFT)

    def root(self, table: str) -> str:
        """The first table of the group of a sharded table."""
        return self.of(table).colocate_with or table


_LEFT = Choice(PLAIN)


@dataclass(frozen=True)
class Obstacle:
    """What keeps a table from becoming what it is to become.

    Args:
        ways: what can be done, each of them enough.
        sql: the statement of the first way, where there is one.
        do: a statement that takes it away and changes nothing else, so that nobody need be asked.
    """

    table: str
    what: str
    ways: tuple[str, ...] = ()
    sql: str = ""
    do: str | None = None


@dataclass(frozen=True)
class Share:
    table: str


@dataclass(frozen=True)
class Shard:
    table: str
    by: str
    partitions: int
    colocate_with: str | None


@dataclass(frozen=True)
class DropKey:
    """Note a foreign key down, and drop it: its tables could not be sharded, or shared, one after the other."""

    key: ForeignKey


@dataclass(frozen=True)
class AddKey:
    """Add a foreign key again, of sharded tables (``inside`` of a group), shared or plain ones."""

    key: ForeignKey
    inside: bool


@dataclass(frozen=True)
class Own:
    """Give a table the sequence that one of its columns, and nothing else, has its numbers from."""

    table: str
    statement: str


Action = Share | Shard | DropKey | AddKey | Own


def obstacles(
    application: Application,
    wanted: Distribution,
    asked: Mapping[str, Sequence[Obstacle]] | None = None,
) -> list[Obstacle]:
    """All that is in the way of all tables.

    Args:
        asked: by table, what its node says of it by itself.
    """
    found: list[Obstacle] = []
    for name, table in sorted(application.tables.items()):
        choice = wanted.of(name)
        found += _of_choice(application, wanted, table, choice)
        found += _of_state(table, choice)
        if table.state == PLAIN and choice.how == SHARDED:
            found += _of_keys(table, choice)
        if table.partitioned and choice.how != PLAIN:
            found.append(_partitioned(table))
            continue
        for key in sorted(application.references(name), key=lambda f: f.name):
            found += _of_reference(application, wanted, key)
        if table.state == PLAIN:
            found += (o for o in (asked or {}).get(name, ()) if o.do is None)
    return found


def _of_choice(
    application: Application, wanted: Distribution, table: Table, choice: Choice
) -> Iterator[Obstacle]:
    if choice.how != SHARDED or choice.colocate_with is None:
        return
    root = wanted.of(choice.colocate_with)
    if choice.colocate_with not in application.tables or root.how != SHARDED:
        yield Obstacle(
            table.name,
            f"it is to be colocated with {choice.colocate_with}, which is not to be sharded",
            ("Name a table that is sharded",),
        )
        return
    if root.colocate_with is not None:
        yield Obstacle(
            table.name,
            f"it is to be colocated with {choice.colocate_with}, which is itself colocated with"
            f" {root.colocate_with}",
            (f"Write colocate_with = {root.colocate_with}",),
        )
    mine = _types(table, choice)
    theirs = _types(application.tables[choice.colocate_with], root)
    if mine and theirs and mine != theirs:
        yield Obstacle(
            table.name,
            f"{choice.by} is {', '.join(mine)}, and {choice.colocate_with} is sharded by"
            f" {root.by}, which is {', '.join(theirs)}: equal values would not lie together",
            ("Give both the same type",),
        )


def _types(table: Table, choice: Choice) -> list[str]:
    return [table.types.get(c, "?") for c in table.columns_of(choice.by) or ()]


def _partitioned(table: Table) -> Obstacle:
    like = f"CREATE TABLE … (LIKE {table.name} INCLUDING ALL)"
    move = f"Move its rows into a plain table, {like}, and give that its foreign keys and its name"
    stay = f'Write as = "{PLAIN}": it stays on its node, and refers to shared tables there'
    return Obstacle(table.name, "it is partitioned already", (move, stay))


def _of_state(table: Table, choice: Choice) -> Iterator[Obstacle]:
    """A table that is not plain any more does not become something else."""
    if table.state == PLAIN or choice == _LEFT:
        return
    if table.state != choice.how:
        way = "drop_table" if table.state == SHARDED else "unshare_table"
        yield Obstacle(
            table.name,
            f"it is {table.state} already, and the plan wants it {choice.how}",
            (f'Write as = "{table.state}", or make it plain first: shardman.{way}',),
        )
    elif table.state == SHARDED and table.columns_of(choice.by) != table.columns_of(table.by):
        yield Obstacle(
            table.name,
            f"it is sharded by {table.by} already, and the plan wants {choice.by}",
            (f"Write by = {table.by}",),
        )


def _of_keys(table: Table, choice: Choice) -> Iterator[Obstacle]:
    by = table.columns_of(choice.by)
    if by is None:
        return
    unknown = [c for c in by if c not in table.types]
    if unknown:
        yield Obstacle(
            table.name,
            f"it has no column {', '.join(unknown)}",
            (f"The columns are {', '.join(table.types)}",),
        )
        return
    for key in table.lacking(by):
        more = ", ".join(c for c in by if c not in key.columns)
        what = f"the unique key {key.name} does not contain {more}, so no single partition could watch over it"
        if not key.simple:
            yield Obstacle(
                table.name,
                what,
                (f"Drop it, or make it anew with {more}", "Shard by another column"),
            )
            continue
        open_ = [c.name for c in table.columns if c.nullable and c.name in by]
        weaker = (
            f", with which {', '.join(open_)} becomes NOT NULL" * bool(open_)
            if key.primary
            else f": equal ({', '.join(key.columns)}) are then allowed where {more} differs"
        )
        yield Obstacle(
            table.name,
            what,
            (f"Extend it{weaker}", "Shard by a column of it"),
            key_sql(table, key, by),
        )


def key_sql(table: Table, key: Key, by: Sequence[str]) -> str:
    """What makes a key anew with the columns that a table is sharded by in front."""
    columns = ", ".join([*(c for c in by if c not in key.columns), *key.columns])
    if key.constraint:
        kind = "PRIMARY KEY" if key.primary else "UNIQUE"
        return (
            f"ALTER TABLE {table.name} DROP CONSTRAINT {key.name},"
            f" ADD CONSTRAINT {key.name} {kind} ({columns})"
        )
    schema = table.name.rpartition(".")[0]
    place = f"{schema}." if schema else ""
    return (
        f"BEGIN; DROP INDEX {place}{key.name};"
        f" CREATE UNIQUE INDEX {key.name} ON {table.name} ({columns}); COMMIT"
    )


def _of_reference(
    application: Application, wanted: Distribution, key: ForeignKey
) -> Iterator[Obstacle]:
    child, parent = wanted.of(key.table), wanted.of(key.target)
    if key.target not in application.tables:
        parent = _LEFT
    name = f"the foreign key {key.name} to {key.target}"
    drop = f"Drop the key: {key.drop_sql}"
    if parent.how == SHARDED and child.how != SHARDED:
        yield Obstacle(
            key.table,
            f"{name}, which is to be sharded by {parent.by}, can only be had by a table that is"
            f" sharded with it, not by a {child.how} one",
            (*_follow(application, wanted, key), drop),
        )
    elif parent.how == PLAIN and child.how != PLAIN and key.target != key.table:
        yield Obstacle(
            key.table,
            f"{name}, which stays plain: other nodes would not have the rows that it refers to",
            (f"Share {key.target}", drop),
        )
    elif child.how == SHARDED and parent.how == SHARDED:
        yield from _of_inner(application, wanted, key, name, drop)
    if child.how == SHARDED:
        yield from _of_actions(application, wanted, key)


def _of_inner(
    application: Application, wanted: Distribution, key: ForeignKey, name: str, drop: str
) -> Iterator[Obstacle]:
    if wanted.root(key.table) != wanted.root(key.target):
        yield Obstacle(
            key.table,
            f"{name}: both are to be sharded, and are not colocated, so that rows and what they"
            " refer to lie on different nodes",
            (*_follow(application, wanted, key), drop),
        )
    elif not inside(application, wanted, key):
        yield Obstacle(
            key.table,
            f"{name} does not lead from {wanted.of(key.table).by} to {wanted.of(key.target).by}, by which"
            " the two are to be sharded: what a row refers to may lie on another node",
            (*_follow(application, wanted, key), drop),
        )


def _follow(application: Application, wanted: Distribution, key: ForeignKey) -> list[str]:
    """How the table with a key could be sharded with that to which it refers."""
    by = _by(application, wanted, key.target)
    table = application.tables[key.table]
    if by is None or key.table == key.target:
        return []
    pairs = {target: column for column, target in key.pairs}
    if all(c in pairs for c in by):
        columns = ", ".join(pairs[c] for c in by)
        return [f"Shard {key.table} by {columns}, colocated with {wanted.root(key.target)}"]
    have = [c for c in by if c in table.types]
    lead = "" if have == list(by) else f"give {key.table} a column {', '.join(by)}, and "
    return [
        f"Let it follow: {lead}make the key (…, {', '.join(by)}) to a unique key of {key.target} with that"
    ]


def _by(application: Application, wanted: Distribution, name: str) -> tuple[str, ...] | None:
    return application.tables[name].columns_of(wanted.of(name).by)


def inside(application: Application, wanted: Distribution, key: ForeignKey) -> bool:
    """Whether a row and what it refers to are sharded by the same."""
    mine, theirs = (_by(application, wanted, t) for t in (key.table, key.target))
    if not mine or not theirs or len(mine) != len(theirs):
        return False
    return all(pair in key.pairs for pair in zip(mine, theirs, strict=True))


def _of_actions(
    application: Application, wanted: Distribution, key: ForeignKey
) -> Iterator[Obstacle]:
    by = _by(application, wanted, key.table) or ()
    written = [c for c in by if c in key.writes]
    if written:
        yield Obstacle(
            key.table,
            f"the foreign key {key.name} would change {', '.join(written)}, by which rows are distributed,"
            f" when a row of {key.target} is changed",
            (f"Make it without that action. First: {key.drop_sql}",),
        )
    if not key.sound:
        yield Obstacle(
            key.table,
            f"the foreign key {key.name} is not enforced, or was never validated",
            (
                f"ALTER TABLE {key.table} VALIDATE CONSTRAINT {key.name}",
                f"Drop the key: {key.drop_sql}",
            ),
        )


def _shared_order(
    application: Application, wanted: Distribution
) -> tuple[list[str], list[ForeignKey]]:
    """Tables that are to be shared, in the order of their foreign keys, and keys that are away meanwhile:
    of tables that refer to each other in a circle none could be the first."""
    left = {
        n for n, t in application.tables.items() if wanted.of(n).how == SHARED and t.state == PLAIN
    }
    order: list[str] = []
    away: list[ForeignKey] = []
    keys = [f for f in application.foreign_keys if f.table != f.target and not f.dropped]
    while left:
        keys = [f for f in keys if f.table in left and f.target in left]
        if free := sorted(left - {f.table for f in keys}):
            order += free
            left -= set(free)
        else:
            first = min(n for n in left if n in _reached(n, keys))
            away += [f for f in keys if f.table == first and first in _reached(f.target, keys)]
            keys = [f for f in keys if f not in away]
    return order, away


def _reached(table: str, keys: Sequence[ForeignKey]) -> set[str]:
    """The tables to which foreign keys lead from one, and from those."""
    found: set[str] = set()
    new = {table}
    while new := {f.target for f in keys if f.table in new} - found:
        found |= new
    return found


@dataclass
class _Order:
    """What is still to be done, in order."""

    application: Application
    wanted: Distribution
    actions: list[Action] = field(default_factory=list)

    def make(self) -> list[Action]:
        shared, away = _shared_order(self.application, self.wanted)
        self.actions += [DropKey(f) for f in away]
        self.actions += [Share(t) for t in shared]
        self.actions += [
            AddKey(f, inside=False)
            for f in self.application.foreign_keys
            if (f.dropped or f in away)
            and SHARDED not in (self.wanted.of(f.table).how, self.wanted.of(f.target).how)
        ]
        for root in sorted({self.wanted.root(t) for t in self._sharded()}):
            self._group(root)
        return self.actions

    def _sharded(self) -> list[str]:
        return [n for n in self.application.tables if self.wanted.of(n).how == SHARDED]

    def _group(self, root: str) -> None:
        members = sorted(
            (t for t in self._sharded() if self.wanted.root(t) == root),
            key=lambda t: (t != root, t),
        )
        todo = [t for t in members if self.application.tables[t].state == PLAIN]
        keys = sorted(
            (
                f
                for f in self.application.foreign_keys
                if f.table in members and f.target in members
            ),
            key=lambda f: (f.table, f.name),
        )
        self.actions += [DropKey(f) for f in keys if not f.dropped and f.target in todo]
        for name in todo:
            choice = self.wanted.of(name)
            assert choice.by is not None
            first = self.wanted.of(root)
            known = self.application.tables[root].partitions
            count = known or first.partitions or 1
            self.actions.append(Shard(name, choice.by, count, None if name == root else root))
        self.actions += [AddKey(f, inside=True) for f in keys if f.dropped or f.target in todo]


def actions(
    application: Application,
    wanted: Distribution,
    asked: Mapping[str, Sequence[Obstacle]] | None = None,
) -> list[Action]:
    """What is still to be done: what takes obstacles away and changes nothing else; shared tables in the order
    of their foreign keys; then group by group, the first of each first. Nothing when all is as wanted."""
    first = [
        Own(name, o.do)
        for name, of in sorted((asked or {}).items())
        for o in of
        if o.do is not None
    ]
    return [*first, *_Order(application, wanted).make()]
