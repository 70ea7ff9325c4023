"""rename_table(relation, new_name): another name or schema for a sharded table, on all nodes at one instant.

What it guarantees is in docs/commands/rename_table.md; the instant that matters is steps/renaming.py.
"""

from __future__ import annotations

from shardman import names
from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import group_claims
from shardman.commands.together import need_possible, need_whole
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@verb
class RenameTable(Command):
    """Calls ``relation`` ``new_name``, and its partitions after it."""

    name = "rename_table"
    summary = "Give a sharded table another name or another schema, on all nodes at one instant."

    relation: str = argument("A sharded table, written as in SQL.", kind=Kind.RELATION)
    new_name: str = argument("Its new name, or its name with another schema before it.")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return (
            frozenset({Claim("membership", shared=True), Claim(f"table {self.relation}")})
            | ({Claim(f"table {self.new_name}")})
            | (group_claims(cluster, self.relation) if self.relation in cluster.tables else set())
            | ({Claim("channels")} if self._channels(cluster) else set())
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        if self.relation not in cluster.tables:
            return ()
        return (
            Question("digest", 0, "select shardman.placement_digest(%s)", (self.relation,)),
            *(
                Question(
                    f"obstacles {node}",
                    node,
                    "select shardman.rename_obstacles(%s, %s)",
                    (self.relation, self.new_name),
                )
                for node in cluster.members
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        if self.relation in cluster.shared:
            raise UserError(
                f"{self.relation} is a shared table, and only sharded ones can be renamed",
                f"Make it plain with unshare_table('{self.relation}', ...), rename it, and share it again",
                code=Code.TABLE_UNSUITABLE,
            )
        cluster.table(self.relation)
        self._need_one_change()
        if self.new_name in cluster.tables or self.new_name in cluster.shared:
            raise UserError(
                f"there is a table {self.new_name} already",
                "Choose another name",
                code=Code.NAME_TAKEN,
            )
        need_possible(facts)
        need_whole(cluster, self.relation)
        renamed: dict[str, Json] = {
            "relation": self.relation,
            "wanted": self.new_name,
            "digest": facts.answers.get("digest"),
        }
        members: list[Json] = list(cluster.members)
        return Plan(
            prepare=(
                Step(
                    "rename_cut_over",
                    f"call {self.relation} {self.new_name} on all nodes",
                    {**renamed, "members": members, "channels": self._channels(cluster)},
                ),
            ),
            switch=(Step("record_name", f"record that it is called {self.new_name}", renamed),),
            finish=(
                Step("rename_release", "release all nodes", {"members": members}),
                Step(
                    "redefine_renamed",
                    "write down what it is",
                    {"relation": self.new_name, "node": self._first(cluster)},
                ),
                Step("converge", "tell all nodes", {"relation": self.new_name}),
            ),
        )

    def _first(self, cluster: Cluster) -> int:
        return min(c.owner for c in cluster.primaries.values() if c.relation == self.relation)

    def _channels(self, cluster: Cluster) -> list[Json]:
        """From where to where rows of the table are replicated."""
        parts = {c.part_name: c.owner for c in cluster.copies if c.prv is None}
        pairs = {
            (parts[c.part_name], c.owner)
            for c in cluster.copies
            if c.relation == self.relation and c.prv is not None
        }
        return [list[Json](pair) for pair in sorted(pairs)]

    def _need_one_change(self) -> None:
        schema, name = names.unquote(self.relation)
        new_schema, new_name = names.unquote(self.new_name)
        if (schema == new_schema) == (name == new_name):
            raise UserError(
                f"{self.new_name} has "
                + ("the same name" if name == new_name else "another name and another schema"),
                "Give another name or another schema, one after the other",
                code=Code.TABLE_UNSUITABLE,
            )
