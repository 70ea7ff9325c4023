"""restore_layout: a table that was made again lies as the one of its name did that was dropped. CREATE TABLE
submits it by itself; see docs/commands/layouts.md."""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@verb
class RestoreLayout(Command):
    """Shards or shares ``relation`` of worker ``node_id``, and the tables that are linked with it by foreign
    keys, as tables of these names were sharded or shared before DROP TABLE."""

    name = "restore_layout"
    summary = "Let a table that was made again lie as it did before DROP TABLE."

    relation: str = argument("A plain table, of a name that is remembered.")
    node_id: int = argument("The worker that has it.", kind=Kind.NODE)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        # What it does with tables it lets commands of their own do. One does all tables that are linked; the
        # others find nothing left to do.
        return frozenset({Claim("layouts")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return ()

    def plan(self, facts: Facts) -> Plan:
        facts.cluster.worker(self.node_id)
        here: dict[str, Json] = {"node": self.node_id, "relation": self.relation}
        return Plan(
            prepare=(
                Step("await_layout", f"wait until {self.relation} has its keys", here),
                Step(
                    "lay_again",
                    f"let {self.relation} lie as before",
                    {**here, "members": list[Json](facts.cluster.members)},
                ),
            )
        )
