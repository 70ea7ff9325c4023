"""Which tables of an application are to be sharded, by what, and which are to be shared: pure.

Columns that foreign keys connect mean the same: they are one *domain* (a customer's number, wherever it is).
The tables of a group are sharded by columns of one domain. No table outside of the group may refer to one
in it, so a group is closed: with a table come all that refer to it, each by a foreign key that has the
column; where one of them has it not, the table cannot be in that group. What a group refers to outside of
itself is shared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from shardman.model.application import PLAIN, SHARDED, SHARED, Application, Table
from shardman.model.distribution import Choice, Distribution

MEGABYTE = 1024 * 1024
SHARED_BELOW = 100 * MEGABYTE

#: What a table with a key that has to be changed first counts; and where it could be sharded without that.
_CHANGED, _CHANGED_NEEDLESSLY = 0.9, 0.1
#: What a big table that has to be shared costs, in its bytes: one writer at a time, and a copy everywhere.
_SHARED_THOUGH_BIG = 4


@dataclass(frozen=True)
class Wishes:
    """What the person has said.

    Args:
        shared_below: tables with fewer bytes are shared.
        shard: by table, by which column it is to be sharded.
        partitions: of each group; None: as many as fit the number of workers.
    """

    shared_below: int = SHARED_BELOW
    shard: Mapping[str, str] = field(default_factory=dict)
    partitions: int | None = None


#: By table, the column that it is sharded by.
_Columns = dict[str, str]


def propose(application: Application, node: int, wishes: Wishes) -> Distribution:
    """What to do with the tables of a node."""
    return _Proposal(application, wishes).make(node)


def default_partitions(workers: int) -> int:
    """A few for each node, and for those that may come."""
    count = 12
    while count < 4 * workers:
        count *= 2
    return count


class _Proposal:
    def __init__(self, application: Application, wishes: Wishes) -> None:
        self.application = application
        self.wishes = wishes
        self.tables = application.tables
        self.groups: list[_Columns] = []

    # -- what there is to choose from ------------------------------------------------------------

    @cached_property
    def domains(self) -> list[dict[str, list[str]]]:
        """The columns of each domain, by table."""
        found = {
            (t.name, c.name): {(t.name, c.name)} for t in self.tables.values() for c in t.columns
        }
        for key in self.application.foreign_keys:
            for column, target in key.pairs:
                ends = (key.table, column), (key.target, target)
                if all(e in found for e in ends) and found[ends[0]] is not found[ends[1]]:
                    both = found[ends[0]] | found[ends[1]]
                    found.update(dict.fromkeys(both, both))
        domains: list[dict[str, list[str]]] = []
        for members in {id(m): m for m in found.values()}.values():
            by_table: dict[str, list[str]] = defaultdict(list)
            for table, column in sorted(members):
                by_table[table].append(column)
            domains.append(by_table)
        return sorted(domains, key=lambda d: sorted(d.items()))

    def _column(self, table: Table, names: list[str]) -> str | None:
        """Of several columns of a domain, that which is in all keys, then that which is asked for most."""
        usable = [c.name for c in table.columns if c.name in names and c.shardable]
        return min(
            usable,
            key=lambda c: (len(table.lacking([c])), -self.application.calls(table.name, c), c),
            default=None,
        )

    def _closed(self, domain: Mapping[str, list[str]], taken: set[str]) -> _Columns:
        """The largest group of a domain."""
        group: _Columns = {}
        for name, names in domain.items():
            table = self.tables[name]
            column = self._column(table, names)
            if column and not table.partitioned and table.state == PLAIN and name not in taken:
                group[name] = column
        types = [self.tables[n].types[c] for n, c in group.items()]
        common = max(sorted(set(types)), key=types.count, default=None)
        group = {n: c for n, c in group.items() if self.tables[n].types[c] == common}
        while unfit := {n for n in group if not self._fits(group, n)}:
            group = {n: c for n, c in group.items() if n not in unfit}
        return group

    def _fits(self, group: _Columns, name: str) -> bool:
        """Whether all that refers to a table of a group is in it, and refers to it by its column; and whether
        no action of a foreign key would change that."""
        return all(
            f.table in group and (group[f.table], group[name]) in f.pairs
            for f in self.application.referring(name)
        ) and not any(group[name] in f.writes for f in self.application.references(name))

    # -- which is best ---------------------------------------------------------------------------

    def make(self, node: int) -> Distribution:
        known = self._known()
        forced = {t: c for t, c in self.wishes.shard.items() if t not in known}
        self._join(known)
        self._force(forced)
        taken = {*known, *(t for g in self.groups for t in g)}
        while group := self._best(taken):
            self.groups.append(group)
            taken |= {*group, *self._needed_by(group)}
        return Distribution(node, {**self._choices(), **known})

    def _known(self) -> dict[str, Choice]:
        """What is decided, as it is done. What the person wants otherwise is told to be in the way."""
        return {
            n: Choice(
                t.state, t.by, t.partitions, t.group if t.group != n else None, why="is it already"
            )
            for n, t in self.tables.items()
            if t.state != PLAIN and not self._is_wished_otherwise(t)
        }

    def _is_wished_otherwise(self, table: Table) -> bool:
        column = self.wishes.shard.get(table.name)
        return column is not None and table.columns_of(column) != table.columns_of(table.by)

    def _join(self, known: Mapping[str, Choice]) -> None:
        """What refers to tables that are sharded goes along: an earlier run may not have come to its end."""
        groups: dict[str, _Columns] = defaultdict(dict)
        for name, choice in known.items():
            columns = self.tables[name].columns_of(choice.by) or ()
            if choice.how == SHARDED and len(columns) == 1:
                groups[choice.colocate_with or name][name] = columns[0]
        for group in groups.values():
            self._follow(group, {})
        self.groups += groups.values()

    def _force(self, forced: Mapping[str, str]) -> None:
        """Groups of what the person wants, with what has to follow; whether it can is seen later, for all at
        once."""
        groups: list[_Columns] = []
        for name, column in forced.items():
            if any(name in g for g in groups):
                continue
            group = {name: column}
            self._follow(group, forced)
            groups.append(group)
        self.groups += groups

    def _follow(self, group: _Columns, forced: Mapping[str, str]) -> None:
        grown = True
        while grown:
            grown = False
            for key in self.application.foreign_keys:
                pairs = {target: column for column, target in key.pairs}
                column = pairs.get(group.get(key.target, ""))
                # What the person wants by another column does not follow by this one.
                follows = column is not None and forced.get(key.table, column) == column
                if follows and key.table not in group and key.table in self.tables:
                    assert column is not None
                    group[key.table] = column
                    grown = True
                # Both are wanted by the columns of the key: the one referred to is of the group too.
                pair = (group.get(key.table, ""), forced.get(key.target, ""))
                if pair in key.pairs and key.target not in group:
                    group[key.target] = pair[1]
                    grown = True

    def _best(self, taken: set[str]) -> _Columns | None:
        found = [g for d in self.domains if (g := self._big_of(self._closed(d, taken)))]
        alone = {
            n
            for g in found
            for n, c in g.items()
            if not self.tables[n].lacking([c]) and not self._big(self._needed_by(g))
        }
        return max(found, key=lambda g: self._worth(g, alone), default=None)

    def _big_of(self, group: _Columns) -> _Columns:
        """Of a group, the big tables and those that refer to them."""
        kept = self._big(set(group))
        grown = True
        while grown:
            more = {f.table for n in kept for f in self.application.referring(n)} - kept
            kept, grown = kept | more, bool(more)
        return {n: c for n, c in group.items() if n in kept}

    def _big(self, names: set[str]) -> set[str]:
        return {n for n in names if self.tables[n].bytes >= self.wishes.shared_below}

    def _needed_by(self, group: _Columns) -> set[str]:
        """What has to be shared where these are a group: what they refer to, and what that refers to."""
        found: set[str] = set()
        todo = set(group)
        while todo:
            todo = (
                {
                    f.target
                    for n in todo
                    for f in self.application.references(n)
                    if f.target in self.tables
                }
                - found
                - set(group)
            )
            found |= todo
        return found

    def _worth(self, group: _Columns, alone: set[str]) -> tuple[float, int, int, list[str]]:
        gain = 0.0
        for name in self._big(set(group)):
            table = self.tables[name]
            part = 1.0
            if table.lacking([group[name]]):
                part = _CHANGED_NEEDLESSLY if name in alone else _CHANGED
            gain += part * table.bytes
        lost = sum(self.tables[n].bytes for n in self._big(self._needed_by(group)))
        asked = sum(self.application.calls(n, c) for n, c in group.items())
        return gain - _SHARED_THOUGH_BIG * lost, asked, len(group), sorted(group, reverse=True)

    # -- in words --------------------------------------------------------------------------------

    def _choices(self) -> dict[str, Choice]:
        choices: dict[str, Choice] = {}
        for group in self.groups:
            root = self._root(group)
            for name, column in group.items():
                choices[name] = Choice(
                    SHARDED,
                    column,
                    self._partitions() if name == root else None,
                    None if name == root else root,
                    self._why_sharded(name, root, group),
                )
        for name in self.tables:
            if name not in choices:
                choices[name] = self._other(name)
        return choices

    def _partitions(self) -> int:
        return self.wishes.partitions or default_partitions(self.application.workers)

    def _root(self, group: _Columns) -> str:
        """The table that most of the group refer to and that refers to none of them; where tables of it are
        sharded already, theirs."""
        for name in sorted(group):
            if self.tables[name].state == SHARDED:
                return self.tables[name].group or name

        def inner(name: str) -> int:
            return sum(
                f.target in group and f.target != name for f in self.application.references(name)
            )

        return min(
            group,
            key=lambda n: (inner(n), -len(self.application.referring(n)), -self.tables[n].bytes, n),
        )

    def _why_sharded(self, name: str, root: str, group: _Columns) -> str:
        if name in self.wishes.shard:
            return "as you wished"
        if self.tables[name].bytes >= self.wishes.shared_below:
            return "big"
        to = [f.target for f in self.application.references(name) if f.target in group]
        return f"refers to {', '.join(sorted(set(to) - {name})) or root}"

    def _other(self, name: str) -> Choice:
        table = self.tables[name]
        if table.partitioned:
            return Choice(
                PLAIN,
                why="partitioned already: to shard it, move its rows into a plain table first",
            )
        if table.primary is None:
            return self._without_key(name)
        if table.bytes >= self.wishes.shared_below:
            return Choice(SHARED, why=f"BIG, but shared: {self._why_not(name)}")
        return Choice(SHARED, why=self._why_shared(name))

    def _without_key(self, name: str) -> Choice:
        """By its name a column may be what a group is sharded by, though no foreign key says so."""
        table = self.tables[name]
        for group in self.groups:
            root = self._root(group)
            column = group[root]
            if table.types.get(column) == self.tables[root].types.get(column) and column != "id":
                return Choice(
                    SHARDED, column, None, root, f"has no primary key, but {column}, as {root} has"
                )
        if table.bytes >= self.wishes.shared_below and not self.application.referring(name):
            by = next((c.name for c in table.columns if c.shardable), None)
            if by is not None and not table.keys:
                return Choice(
                    SHARDED,
                    by,
                    self._partitions(),
                    None,
                    "big; it has no key, so look whether another column tells more rows apart",
                )
        return Choice(
            PLAIN, why="has no primary key, and without one it cannot be shared: stays on one node"
        )

    def _why_shared(self, name: str) -> str:
        table = self.tables[name]
        writes = self.application.writes(name)
        often = f"; written {writes} times, which one writer at a time can do" if writes else ""
        return f"small{often}" if table.rows or table.bytes else f"empty{often}"

    def _why_not(self, name: str) -> str:
        grouped = {t for g in self.groups for t in g}
        by = sorted({f.table for f in self.application.referring(name)} & grouped)
        if by:
            return f"{', '.join(by)} refers to it, and is sharded by another column"
        referring = sorted({f.table for f in self.application.referring(name)})
        if name in referring:
            return "it refers to itself; drop that foreign key to shard it"
        return f"no column of it could be followed by what refers to it ({', '.join(referring)})"
