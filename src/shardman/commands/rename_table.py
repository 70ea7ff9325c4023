"""rename_table(relation, new_name, follow): another name or schema for a sharded or shared table, on all nodes.

What it guarantees is in docs/commands/rename_table.md; the instant that matters is steps/renaming.py.
ALTER TABLE submits it by itself, with ``follow``: the table has the name then, and the rest gets it.
"""

from __future__ import annotations

from shardman import names
from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import group_claims
from shardman.commands.together import need_possible, need_whole
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster, Shared
from shardman.model.plan import Json, Plan, Step


@verb
class RenameTable(Command):
    """Calls ``relation`` ``new_name``, and its partitions after it. With ``follow`` only if ALTER TABLE has
    called it so, and has not called it otherwise since."""

    name = "rename_table"
    summary = "Give a sharded or shared table another name or another schema, on all nodes."

    relation: str = argument("A sharded or shared table, written as in SQL.", kind=Kind.RELATION)
    new_name: str = argument("Its new name, or its name with another schema before it.")
    follow: bool = argument(
        "Only if ALTER TABLE has called it so, and not otherwise since: it submits this by itself.",
        default=False,
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return (
            frozenset({Claim("membership", shared=True), Claim(f"table {self.relation}")})
            | ({Claim(f"table {self.new_name}")})
            | (group_claims(cluster, self.relation) if self.relation in cluster.tables else set())
            # Definitions of those that refer to it have its name.
            | ({Claim("tables that are shared")} if self.relation in cluster.shared else set())
            | ({Claim("channels")} if self._channels(cluster) else set())
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        if self.relation in cluster.shared:
            return shared_questions(cluster.shared[self.relation], self.new_name)
        if self.relation not in cluster.tables:
            return ()
        return (
            Question("digest", 0, "select shardman.placement_digest(%s)", (self.relation,)),
            *(called_question(self.relation, node) for node in cluster.members),
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
        if self.follow and self._is_known_so(cluster):
            # Another command has been here; what was changed since is written down.
            return Plan(finish=self._redefine(cluster))
        if self.follow and not self._is_called_so(facts):
            return Plan()
        if self.relation in cluster.shared:
            return self._plan_shared(facts, cluster.shared[self.relation])
        cluster.table(self.relation)
        self._need_new(cluster)
        need_possible(facts, cluster.members)
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
                *self._redefine(cluster),
            ),
        )

    def _redefine(self, cluster: Cluster) -> tuple[Step, Step]:
        table = cluster.shared.get(self.relation) or cluster.shared.get(self.new_name)
        where = {} if table else {"relation": self.new_name}
        return (
            Step(
                "redefine_renamed",
                "write down what it is",
                {
                    "relation": self.new_name,
                    "node": min(table.nodes) if table else self._first(cluster),
                },
            ),
            Step("converge", "tell all nodes", where),
        )

    def _is_known_so(self, cluster: Cluster) -> bool:
        known = {*cluster.tables, *cluster.shared}
        return self.relation not in known and self.new_name in known

    def _is_called_so(self, facts: Facts) -> bool:
        """What any node has committed goes forward everywhere."""
        shared = facts.cluster.shared.get(self.relation)
        nodes = shared.nodes if shared else facts.cluster.members
        return any(facts.answers.get(f"called {n}") == self.new_name for n in nodes)

    def _plan_shared(self, facts: Facts, table: Shared) -> Plan:
        self._need_new(facts.cluster)
        need_possible(facts, table.nodes)
        return Plan(
            switch=(
                Step(
                    "record_shared_name",
                    f"record that {self.relation} is called {self.new_name}",
                    {"relation": self.relation, "wanted": self.new_name},
                ),
            ),
            finish=(
                *(
                    Step(
                        "follow_name",
                        f"call it so on node {n}",
                        {"node": n, "relation": self.new_name},
                    )
                    for n in table.nodes
                ),
                *self._redefine(facts.cluster),
            ),
        )

    def _need_new(self, cluster: Cluster) -> None:
        if not self.follow:
            self._need_one_change()
        if self.new_name in cluster.tables or self.new_name in cluster.shared:
            raise UserError(
                f"there is a table {self.new_name} already",
                "Choose another name",
                code=Code.NAME_TAKEN,
            )

    def _first(self, cluster: Cluster) -> int:
        names_ = (self.relation, self.new_name)
        return min(c.owner for c in cluster.primaries.values() if c.relation in names_)

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


def shared_questions(table: Shared, wanted: str) -> tuple[Question, ...]:
    """What a shared table is called on each node with a copy, and what is in the way of another name."""
    both = (table.relation, wanted)
    return tuple(
        question
        for n in table.nodes
        for question in (
            called_question(table.relation, n),
            Question(f"obstacles {n}", n, "select shardman.shared_name_obstacles(%s, %s)", both),
        )
    )


def called_question(relation: str, node: int) -> Question:
    """What a table is called on a node: otherwise than in the metadata, where ALTER TABLE has renamed it."""
    return Question(f"called {node}", node, "select shardman.called_here(%s)", (relation,))
