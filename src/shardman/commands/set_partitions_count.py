"""set_partitions_count(relation, partitions_count): more or fewer partitions, while the table is in use.

What it guarantees is in docs/commands/set_partitions_count.md; the instant that matters is
steps/split/cut_over.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.together import need_possible, need_whole
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step
from shardman.model.splitting import Gathering, gather


@verb
class SetPartitionsCount(Command):
    """Gives ``relation`` ``partitions_count`` partitions: a multiple or a divisor of what it has."""

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
                Claim(f"table {self.relation}"),
                *({Claim("channels")} if replicas else ()),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """What on each node is in the way, and what the table is now."""
        table = cluster.tables.get(self.relation)
        if table is None:
            return ()
        sizes = (self.relation, table.partitions_count, self.partitions_count)
        return (
            *(
                Question(
                    f"obstacles {node}", node, "select shardman.split_obstacles(%s, %s, %s)", sizes
                )
                for node in cluster.members
            ),
            Question(
                "redefined", self._first(cluster), "select shardman.redefine(%s)", (self.relation,)
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        table = cluster.table(self.relation)
        if others := [t for t in cluster.group(self.relation) if t != self.relation]:
            raise UserError(
                f"{self.relation} is colocated with {', '.join(others)}, which have as many partitions",
                "Colocated tables keep their number of partitions",
                code=Code.TABLE_UNSUITABLE,
            )
        former, count = table.partitions_count, self.partitions_count
        self._need_ratio(former)
        self._need_alone(cluster)
        need_possible(facts)
        described = self._described(facts)
        gathered = gather(cluster, self.relation, former, count)
        need_whole(cluster, self.relation)
        definition = {**described["definition"], "partitions_count": count}
        split: dict[str, Json] = {
            "relation": self.relation,
            "former": former,
            "definition": definition,
            "copies": [list(nodes) for nodes in gathered.copies],
        }
        members: list[Json] = list(cluster.members)
        return Plan(
            prepare=self._prepare(gathered, split, members),
            switch=(
                Step(
                    "record_partitions",
                    f"record that {self.relation} has {count} partitions",
                    {
                        "relation": self.relation,
                        "former": former,
                        "definition": definition,
                        "create_sql": described["create_sql"],
                    },
                ),
            ),
            finish=self._finish(split, members),
        )

    def _prepare(
        self, gathered: Gathering, split: dict[str, Json], members: list[Json]
    ) -> tuple[Step, ...]:
        name = self.relation
        replicas = any(len(nodes) > 1 for nodes in gathered.copies)
        moves: list[Json] = [
            {"part": m.part_name, "dest": m.dest, "src": m.src} for m in gathered.moves
        ]
        together = Step(
            "gather_parts", "bring together what becomes one partition", {"moves": moves}
        )
        register = Step("split_register", "let channels know the new data tables", split)
        return (
            *((together,) if moves else ()),
            Step(
                "split_servers",
                "make ways for the new partitions' routes",
                {"members": members, "owners": _owners(split)},
            ),
            Step("split_log", f"log writes to {name}", split),
            Step("split_tables", f"make data tables for {self.partitions_count} partitions", split),
            Step("split_copy", f"copy rows of {name} into them", split),
            Step("split_indexes", "build indexes", split),
            *((register,) if replicas else ()),
            Step("split_verify", "compare old and new data tables", split),
            Step(
                "split_cut_over",
                f"switch {name} to its new partitions",
                {**split, "members": members},
            ),
        )

    def _finish(self, split: dict[str, Json], members: list[Json]) -> tuple[Step, ...]:
        definition = split["definition"]
        assert isinstance(definition, dict)
        referred = sorted({str(k["to"]) for k in definition.get("foreign_keys") or ()})  # type: ignore[union-attr,index,call-overload]
        clear: dict[str, Json] = {
            "relation": self.relation,
            "former": split["former"],
            "referred": list[Json](referred),
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
            Step("converge", "tell all nodes", {"relation": self.relation}),
            Step(
                "end_split_servers",
                "use the plain routes",
                {"members": members, "owners": _owners(split)},
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

    def _need_alone(self, cluster: Cluster) -> None:
        if others := [name for name in cluster.group(self.relation) if name != self.relation]:
            raise UserError(
                f"{self.relation} is colocated with {', '.join(others)}, and all would have to change together",
                "That cannot be done yet: make the tables anew with as many partitions as they shall have",
                code=Code.TABLE_UNSUITABLE,
            )

    def _described(self, facts: Facts) -> Mapping[str, Any]:
        described = facts.answers.get("redefined")
        if described is None:
            raise UserError(
                f"the node that has rows of {self.relation} could not say what it is",
                'See what "shardman check" says',
                code=Code.NODE_UNREACHABLE,
            )
        found = described["definition"]
        if not any(e.get("identity") for e in (*found["keys"], *found["indexes"])):
            raise UserError(
                f"{self.relation} has no key by which its rows could be told apart",
                "Give it a primary key first",
                code=Code.TABLE_UNSUITABLE,
            )
        return dict(described)


def _owners(split: Mapping[str, Json]) -> list[Json]:
    copies = split["copies"]
    assert isinstance(copies, Sequence)
    return sorted({nodes[0] for nodes in copies})  # type: ignore[index,type-var]
