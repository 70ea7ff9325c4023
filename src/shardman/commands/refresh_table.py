"""refresh_table(relation): the metadata of a table become what it is on its nodes. DDL submits it by itself."""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step


@verb
class RefreshTable(Command):
    """Writes down what ``relation`` is now: its columns, checks, indexes, rights and policies."""

    name = "refresh_table"
    summary = "Write down what a table is now, for nodes that are added and for moves."
    follows_ddl = True

    relation: str = argument("A sharded or shared table, written as in SQL.", kind=Kind.RELATION)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        tables = (self.relation, *self._referring(cluster))
        return frozenset({Claim("membership", shared=True), *(Claim(f"table {t}") for t in tables)})

    def _referring(self, cluster: Cluster) -> list[str]:
        """The tables of its group whose foreign keys name its columns."""
        group = cluster.group(self.relation)
        return [
            t for t in group if t != self.relation and self.relation in cluster.tables[t].inside
        ]

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        function = "redefine_shared" if self.relation in cluster.shared else "redefine"
        return (
            *(
                Question(
                    f"redefined {node}", node, f"select shardman.{function}(%s)", (self.relation,)
                )
                for node in self._with_rows(cluster)
            ),
            *(
                Question(
                    f"redefined {table} {node}", node, "select shardman.redefine(%s)", (table,)
                )
                for table in self._referring(cluster)
                for node in self._with_rows(cluster)
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        shared = self.relation in cluster.shared
        if not shared:
            cluster.table(self.relation)
        answers = (facts.answers.get(f"redefined {n}") for n in self._with_rows(cluster))
        redefined = next((a for a in answers if a is not None), None)
        if redefined is None:
            raise UserError(
                f"no node that has rows of {self.relation} could say what it is",
                "Start one of them and try again",
                code=Code.NODE_UNREACHABLE,
            )
        referring = {
            table: answer
            for table in self._referring(cluster)
            for n in self._with_rows(cluster)
            if (answer := facts.answers.get(f"redefined {table} {n}")) is not None
        }
        return Plan(
            switch=(
                Step(
                    "redefine_shared" if shared else "redefine_table",
                    f"record what {self.relation} is",
                    {
                        "relation": self.relation,
                        **({"definition": redefined} if shared else redefined),
                    },
                ),
                *(
                    Step("redefine_table", f"record what {t} is", {"relation": t, **answer})
                    for t, answer in referring.items()
                ),
            ),
            finish=tuple(
                Step("converge", "tell all nodes", {"relation": t})
                for t in (self.relation, *referring)
            ),
        )

    def _with_rows(self, cluster: Cluster) -> tuple[int, ...]:
        if self.relation in cluster.shared:
            return cluster.shared[self.relation].nodes
        primaries = cluster.primaries.values()
        return tuple(sorted({c.owner for c in primaries if c.relation == self.relation}))
