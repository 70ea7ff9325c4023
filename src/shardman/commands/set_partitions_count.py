"""set_partitions_count(relation, partitions_count): more or fewer partitions, while the table is in use.

What it guarantees is in docs/commands/set_partitions_count.md; the instant that matters is
steps/split/cut_over.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import group_claims, named
from shardman.commands.together import need_possible, need_whole
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step
from shardman.model.splitting import Gathering, gather


@verb
class SetPartitionsCount(Command):
    """Gives ``relation``, with all that are colocated with it, ``partitions_count`` partitions: a multiple or a
    divisor of what it has."""

    name = "set_partitions_count"
    summary = "Give a sharded table more or fewer partitions, while it is read and written."

    relation: str = argument("A sharded table, written as in SQL.", kind=Kind.RELATION)
    partitions_count: int = argument(
        "How many: a multiple or a divisor of today's number.", at_least=1, at_most=4096
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        replicas = any(c.relation == self.relation and c.prv is not None for c in cluster.copies)
        return frozenset(
            {
                Claim("membership", shared=True),
                *group_claims(cluster, self.relation),
                *({Claim("channels")} if replicas else ()),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """What on each node is in the way, and what the tables are now."""
        table = cluster.tables.get(self.relation)
        if table is None:
            return ()
        tables = self._tables(cluster)
        sizes = (tables, table.partitions_count, self.partitions_count)
        return (
            *(Question(f"obstacles {node}", node, _OBSTACLES, sizes) for node in cluster.members),
            *(
                Question(
                    f"redefined {t}", self._first(cluster), "select shardman.redefine(%s)", (t,)
                )
                for t in tables
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        former = cluster.table(self.relation).partitions_count
        self._need_ratio(former)
        need_possible(facts, cluster.members)
        tables = self._tables(cluster)
        described = {t: self._described(facts, t) for t in tables}
        gathered = self._gathered(cluster, tables, former)
        for t in tables:
            need_whole(cluster, t)
        splits: list[dict[str, Json]] = [
            {
                "relation": t,
                "former": former,
                "definition": {
                    **described[t]["definition"],
                    "partitions_count": self.partitions_count,
                },
                "copies": [list(nodes) for nodes in gathered.copies],
            }
            for t in tables
        ]
        members: list[Json] = list(cluster.members)
        return Plan(
            prepare=self._prepare(gathered, splits, members),
            switch=tuple(
                Step(
                    "record_partitions",
                    f"record that {split['relation']} has {self.partitions_count} partitions",
                    {
                        "relation": split["relation"],
                        "former": former,
                        "definition": split["definition"],
                        "create_sql": described[str(split["relation"])]["create_sql"],
                    },
                )
                for split in splits
            ),
            finish=self._finish(splits, members),
        )

    def _tables(self, cluster: Cluster) -> list[str]:
        """Its group, each table behind those that it refers to, as far as there is such an order."""
        found: list[str] = []

        def take(relation: str, above: frozenset[str]) -> None:
            for other in sorted(cluster.tables[relation].inside & cluster.tables.keys()):
                if other not in above:
                    take(other, above | {other})
            if relation not in found:
                found.append(relation)

        for name in cluster.group(self.relation):
            take(name, frozenset({name}))
        return found

    def _gathered(self, cluster: Cluster, tables: list[str], former: int) -> Gathering:
        """Where the new partitions are, which is the same for all tables of the group; what is moved to there
        takes those that go together with it along.

        Raises:
            UserError: partitions that go together have their copies in different orders.
        """
        found = {t: gather(cluster, t, former, self.partitions_count) for t in tables}
        first = found[self.relation]
        if apart := [t for t in tables if found[t].copies != first.copies]:
            raise UserError(
                f"copies of {', '.join(apart)} do not lie as those of {self.relation} do",
                'See what "shardman check" says',
                code=Code.TABLE_UNSUITABLE,
            )
        return first

    def _prepare(
        self, gathered: Gathering, splits: list[dict[str, Json]], members: list[Json]
    ) -> tuple[Step, ...]:
        replicas = any(len(nodes) > 1 for nodes in gathered.copies)
        moves: list[Json] = [
            {"part": m.part_name, "dest": m.dest, "src": m.src} for m in gathered.moves
        ]
        together = Step(
            "gather_parts", "bring together what becomes one partition", {"moves": moves}
        )
        first, *others = splits
        beside: list[Json] = [
            {"relation": split["relation"], "definition": split["definition"]} for split in others
        ]
        return (
            *((together,) if moves else ()),
            Step(
                "split_servers",
                "make ways for the new partitions' routes",
                {"members": members, "owners": _owners(first)},
            ),
            # The copy of a table is caught up with in the cut-over, however long the others take.
            *(step for split in splits for step in self._build(split, replicas=replicas)),
            Step(
                "split_cut_over",
                f"switch {named([str(split['relation']) for split in splits])} to new partitions",
                {**first, "members": members, **({"beside": beside} if beside else {})},
            ),
        )

    def _build(self, split: dict[str, Json], *, replicas: bool) -> tuple[Step, ...]:
        """The new data tables of one table, beside the old ones."""
        name = split["relation"]
        register = Step("split_register", f"let channels know the new data tables of {name}", split)
        return (
            Step("split_log", f"log writes to {name}", split),
            Step(
                "split_tables",
                f"make data tables for {self.partitions_count} partitions of {name}",
                split,
            ),
            Step("split_copy", f"copy rows of {name} into them", split),
            Step("split_indexes", f"build indexes of {name}", split),
            *((register,) if replicas else ()),
            Step("split_verify", f"compare old and new data tables of {name}", split),
        )

    def _finish(self, splits: list[dict[str, Json]], members: list[Json]) -> tuple[Step, ...]:
        relations = [str(split["relation"]) for split in splits]
        first, *beside = relations
        clear: dict[str, Json] = {
            "relation": first,
            "former": splits[0]["former"],
            "referred": list[Json](sorted({to for split in splits for to in _referred(split)})),
            **({"beside": list[Json](beside)} if beside else {}),
        }
        return (
            Step("split_release", "release all nodes", {"members": members}),
            *(
                Step(
                    "split_clear",
                    f"drop the old data tables on node {node}",
                    {"node": node, **clear},
                )
                for node in members
            ),
            *(Step("converge", "tell all nodes", {"relation": name}) for name in relations),
            Step(
                "end_split_servers",
                "use the plain routes",
                {"members": members, "owners": _owners(splits[0])},
            ),
        )

    def _first(self, cluster: Cluster) -> int:
        """A node that has rows."""
        return min(c.owner for c in cluster.primaries.values() if c.relation == self.relation)

    def _need_ratio(self, former: int) -> None:
        count = self.partitions_count
        if count == former:
            raise UserError(
                f"{self.relation} has {former} partitions already",
                "Give another number",
                code=Code.TABLE_UNSUITABLE,
            )
        if count < 1 or max(former, count) % min(former, count):
            raise UserError(
                f"{self.relation} has {former} partitions, and {count} is no multiple or divisor of that",
                f"Choose such a number: {former * 2}, {former * 3}, …, or one that divides {former}",
                code=Code.TABLE_UNSUITABLE,
            )

    def _described(self, facts: Facts, relation: str) -> Mapping[str, Any]:
        described = facts.answers.get(f"redefined {relation}")
        if described is None:
            raise UserError(
                f"the node that has rows of {relation} could not say what it is",
                'See what "shardman check" says',
                code=Code.NODE_UNREACHABLE,
            )
        found = described["definition"]
        if not any(e.get("identity") for e in (*found["keys"], *found["indexes"])):
            raise UserError(
                f"{relation} has no key by which its rows could be told apart",
                "Give it a primary key first",
                code=Code.TABLE_UNSUITABLE,
            )
        return dict(described)


def _referred(split: Mapping[str, Json]) -> set[str]:
    """The shared tables that its foreign keys refer to."""
    definition: Any = split["definition"]
    return {key["to"] for key in definition.get("foreign_keys") or () if "to_columns" not in key}


def _owners(split: Mapping[str, Json]) -> list[Json]:
    copies = split["copies"]
    assert isinstance(copies, Sequence)
    return sorted({nodes[0] for nodes in copies})  # type: ignore[index,type-var]


_OBSTACLES = (
    "select coalesce(jsonb_agg(o), '[]') from unnest(%s::text[]) as t"
    " cross join jsonb_array_elements(shardman.split_obstacles(t, %s, %s)) as o"
)
