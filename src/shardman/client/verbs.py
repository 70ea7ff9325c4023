"""A method for each verb. Made by ``python -m shardman.client.generate``, not by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from shardman.client.result import Result


class Verbs(ABC):
    """The commands. Each submits itself and waits until it has ended, at most ``timeout`` seconds; with
    ``wait=False`` it returns at once."""

    @abstractmethod
    def _run(
        self, name: str, arguments: Mapping[str, Any], wait: bool, timeout: float | None
    ) -> Result:
        """Submits a command, and waits for its end if asked to."""

    def add_foreign_key(
        self,
        relation: str,
        constraint_name: str,
        definition: str,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Give a sharded table a foreign key to a shared table, or to a colocated one.

        Args:
            relation: a sharded table, written as in SQL.
            constraint_name: what it is called.
            definition: as in SQL: foreign key (country) references countries (code).
        """
        arguments = {
            "relation": relation,
            "constraint_name": constraint_name,
            "definition": definition,
        }
        return self._run("add_foreign_key", arguments, wait, timeout)

    def add_node(
        self,
        connstring: str,
        zone: str | None = None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Add a server to the cluster as a worker.

        Args:
            connstring: a libpq connection string that reaches the server from every node.
            zone: what it may fail together with, say a rack.
        """
        arguments = {
            "connstring": connstring,
            "zone": zone,
        }
        return self._run("add_node", arguments, wait, timeout)

    def build_index(
        self,
        relation: str,
        index_name: str,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Build an index of a sharded table on all copies, while it is read and written.

        Args:
            relation: a sharded table, written as in SQL.
            index_name: an index made with ON ONLY, by create_index_concurrently.
        """
        arguments = {
            "relation": relation,
            "index_name": index_name,
        }
        return self._run("build_index", arguments, wait, timeout)

    def colocate(
        self,
        relation: str,
        colocate_with: str,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Let a sharded table lie with another one, partition by partition, from now on.

        Args:
            relation: a sharded table, written as in SQL.
            colocate_with: the sharded table beside which it is to lie.
        """
        arguments = {
            "relation": relation,
            "colocate_with": colocate_with,
        }
        return self._run("colocate", arguments, wait, timeout)

    def create_hash_partitions(
        self,
        node_id: int,
        relation: str,
        expr: str,
        partitions_count: int | None = None,
        rebalance: bool = True,
        colocate_with: str | None = None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Shard a table that lies on one worker, while it is read and written.

        Args:
            node_id: the worker that has the table.
            relation: the plain table on that worker, with its rows.
            expr: what to shard by: a column, several (a, b), or an immutable expression.
            partitions_count: into how many; as many as the table has that it is colocated with.
            rebalance: spread the partitions over all workers at once.
            colocate_with: a sharded table: partitions of one number lie on the same nodes from then
                on.
        """
        arguments = {
            "node_id": node_id,
            "relation": relation,
            "expr": expr,
            "partitions_count": partitions_count,
            "rebalance": rebalance,
            "colocate_with": colocate_with,
        }
        return self._run("create_hash_partitions", arguments, wait, timeout)

    def create_replica(
        self,
        part_name: str,
        dest: int,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Make a further copy of a partition on a worker.

        Args:
            part_name: a partition, e.g. accounts_3.
            dest: the worker that is to have it.
        """
        arguments = {
            "part_name": part_name,
            "dest": dest,
        }
        return self._run("create_replica", arguments, wait, timeout)

    def create_restore_point(
        self,
        point: str,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Make a restore point on all nodes that no transaction over several nodes straddles.

        Args:
            point: for recovery_target_name; at most 63 bytes.
        """
        arguments = {
            "point": point,
        }
        return self._run("create_restore_point", arguments, wait, timeout)

    def create_shared_table(
        self,
        relation: str,
        node_id: int,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Give every worker a full copy of a plain table, written through from each of them.

        Args:
            relation: a plain table, written as in SQL.
            node_id: the worker that has the table; of a shared one, the worker whose copy is right.
        """
        arguments = {
            "relation": relation,
            "node_id": node_id,
        }
        return self._run("create_shared_table", arguments, wait, timeout)

    def drain_node(
        self,
        node_id: int,
        drain: bool = True,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Move all partitions and replicas off a worker, and place no new ones on it.

        Args:
            node_id: a worker's node id.
            drain: false: it may have partitions again.
        """
        arguments = {
            "node_id": node_id,
            "drain": drain,
        }
        return self._run("drain_node", arguments, wait, timeout)

    def drop_aside(
        self,
        node_id: int,
        table_name: str | None = None,
        also_found: bool = False,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Drop what failovers have set aside on a node, where its rows are elsewhere.

        Args:
            node_id: a node's id.
            table_name: one table, written as in SQL; all of the node otherwise.
            also_found: also what add_node found: it may be another cluster's.
        """
        arguments = {
            "node_id": node_id,
            "table_name": table_name,
            "also_found": also_found,
        }
        return self._run("drop_aside", arguments, wait, timeout)

    def drop_foreign_key(
        self,
        relation: str,
        constraint_name: str,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Take a foreign key from a sharded table.

        Args:
            relation: a sharded table, written as in SQL.
            constraint_name: what it is called.
        """
        arguments = {
            "relation": relation,
            "constraint_name": constraint_name,
        }
        return self._run("drop_foreign_key", arguments, wait, timeout)

    def drop_table(
        self,
        relation: str,
        aside: bool = False,
        follow: bool = False,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Drop a sharded or shared table, with all its rows, on all nodes.

        Args:
            relation: a sharded or shared table, written as in SQL.
            aside: drop what failovers have set aside of it, too.
            follow: only what DROP TABLE has dropped for its users already: it submits this by
                itself.
        """
        arguments = {
            "relation": relation,
            "aside": aside,
            "follow": follow,
        }
        return self._run("drop_table", arguments, wait, timeout)

    def failover(
        self,
        node_id: int,
        accept_data_loss: bool = False,
        part_name: str | None = None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Promote the replicas of a dead worker's partitions now.

        Args:
            node_id: a dead worker's node id.
            accept_data_loss: also promote replicas that may lack acknowledged writes, where nothing
                else is there.
            part_name: only this partition, whose rows are not on the worker any more, though it
                answers.
        """
        arguments = {
            "node_id": node_id,
            "accept_data_loss": accept_data_loss,
            "part_name": part_name,
        }
        return self._run("failover", arguments, wait, timeout)

    def forget_layout(
        self,
        relation: str,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Forget how a table lay that was dropped by DROP TABLE.

        Args:
            relation: the name of a table that was dropped.
        """
        arguments = {
            "relation": relation,
        }
        return self._run("forget_layout", arguments, wait, timeout)

    def maintain(
        self,
        node_id: int,
        seconds: int = 300,
        maintain: bool = True,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Let a worker be away for a while, say for a restart, without a failover.

        Args:
            node_id: a worker's node id.
            seconds: for how long it may be away.
            maintain: false: it may be away.
        """
        arguments = {
            "node_id": node_id,
            "seconds": seconds,
            "maintain": maintain,
        }
        return self._run("maintain", arguments, wait, timeout)

    def move_part(
        self,
        part_name: str,
        dest: int,
        src: int | None = None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Move a partition to another worker, while it is read and written.

        Args:
            part_name: a partition, e.g. accounts_3.
            dest: the worker that is to have it.
            src: move the copy on this node; the primary's if not given.
        """
        arguments = {
            "part_name": part_name,
            "dest": dest,
            "src": src,
        }
        return self._run("move_part", arguments, wait, timeout)

    def rebalance(
        self,
        relation: str,
        by: Literal["number", "bytes"] = "number",
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Spread the partitions of a table evenly, by the fewest moves.

        Args:
            relation: a sharded table, written as in SQL.
            by: what is to be even.
        """
        arguments = {
            "relation": relation,
            "by": by,
        }
        return self._run("rebalance", arguments, wait, timeout)

    def refresh_table(
        self,
        relation: str,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Write down what a table is now, for nodes that are added and for moves.

        Args:
            relation: a sharded or shared table, written as in SQL.
        """
        arguments = {
            "relation": relation,
        }
        return self._run("refresh_table", arguments, wait, timeout)

    def rename_table(
        self,
        relation: str,
        new_name: str,
        follow: bool = False,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Give a sharded or shared table another name or another schema, on all nodes.

        Args:
            relation: a sharded or shared table, written as in SQL.
            new_name: its new name, or its name with another schema before it.
            follow: only if ALTER TABLE has called it so, and not otherwise since: it submits this
                by itself.
        """
        arguments = {
            "relation": relation,
            "new_name": new_name,
            "follow": follow,
        }
        return self._run("rename_table", arguments, wait, timeout)

    def restore_layout(
        self,
        relation: str,
        node_id: int,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Let a table that was made again lie as it did before DROP TABLE.

        Args:
            relation: a plain table, of a name that is remembered.
            node_id: the worker that has it.
        """
        arguments = {
            "relation": relation,
            "node_id": node_id,
        }
        return self._run("restore_layout", arguments, wait, timeout)

    def rm_node(
        self,
        node_id: int,
        force: bool = False,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Remove a worker from the cluster; its data stay on it.

        Args:
            node_id: a worker's node id.
            force: even if it holds partitions or is dead. Rows that no other node has become
                unreachable.
        """
        arguments = {
            "node_id": node_id,
            "force": force,
        }
        return self._run("rm_node", arguments, wait, timeout)

    def rm_replica(
        self,
        part_name: str,
        node: int,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Drop the replica of a partition on a worker.

        Args:
            part_name: a partition, e.g. accounts_3.
            node: the worker that has it.
        """
        arguments = {
            "part_name": part_name,
            "node": node,
        }
        return self._run("rm_replica", arguments, wait, timeout)

    def set_partitions_count(
        self,
        relation: str,
        partitions_count: int,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Give a sharded table more or fewer partitions, while it is read and written.

        Args:
            relation: a sharded table, written as in SQL.
            partitions_count: how many: a multiple or a divisor of today's number.
        """
        arguments = {
            "relation": relation,
            "partitions_count": partitions_count,
        }
        return self._run("set_partitions_count", arguments, wait, timeout)

    def set_replevel(
        self,
        relation: str,
        replevel: int,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Bring every partition of a table to a number of replicas.

        Args:
            relation: a sharded table, written as in SQL.
            replevel: replicas beside the primary.
        """
        arguments = {
            "relation": relation,
            "replevel": replevel,
        }
        return self._run("set_replevel", arguments, wait, timeout)

    def set_sync(
        self,
        relation: str,
        sync: bool,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Let commits wait for the replicas of a table, or not.

        Args:
            relation: a sharded table, written as in SQL.
            sync: whether a commit waits until every replica has it.
        """
        arguments = {
            "relation": relation,
            "sync": sync,
        }
        return self._run("set_sync", arguments, wait, timeout)

    def set_zone(
        self,
        node_id: int,
        zone: str | None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Say what a worker may fail together with: copies go to different zones where they can.

        Args:
            node_id: a worker's node id.
            zone: what it may fail together with, say a rack; without one: with no other node.
        """
        arguments = {
            "node_id": node_id,
            "zone": zone,
        }
        return self._run("set_zone", arguments, wait, timeout)

    def suspend_replicas(
        self,
        src: int,
        dest: int,
        relation: str | None = None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Let commits on one worker wait no more for the replicas on another one.

        Args:
            src: the worker with the primaries.
            dest: the worker with the replicas.
            relation: only the replicas of this table.
        """
        arguments = {
            "src": src,
            "dest": dest,
            "relation": relation,
        }
        return self._run("suspend_replicas", arguments, wait, timeout)

    def switch_primary(
        self,
        part_name: str,
        node: int,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Make a replica the primary, and the primary a replica.

        Args:
            part_name: a partition, e.g. accounts_3.
            node: the worker whose replica becomes the primary.
        """
        arguments = {
            "part_name": part_name,
            "node": node,
        }
        return self._run("switch_primary", arguments, wait, timeout)

    def sync_roles(
        self,
        node: int = 0,
        role: str | None = None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Make the roles of one node the same on all nodes.

        Args:
            node: the node whose roles are taken.
            role: this role alone; without it those that have rights on sharded tables.
        """
        arguments = {
            "node": node,
            "role": role,
        }
        return self._run("sync_roles", arguments, wait, timeout)

    def uncolocate(
        self,
        relation: str,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Let a table go alone that is colocated with others.

        Args:
            relation: a colocated table, written as in SQL.
        """
        arguments = {
            "relation": relation,
        }
        return self._run("uncolocate", arguments, wait, timeout)

    def unshard_table(
        self,
        relation: str,
        node_id: int,
        aside: bool = False,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Make a sharded table a plain table of one worker again, while it is read and written.

        Args:
            relation: a sharded table, written as in SQL.
            node_id: the worker that is to have it.
            aside: drop what failovers have set aside of it, too.
        """
        arguments = {
            "relation": relation,
            "node_id": node_id,
            "aside": aside,
        }
        return self._run("unshard_table", arguments, wait, timeout)

    def unshare_table(
        self,
        relation: str,
        node_id: int,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Make a shared table a plain table of one worker again.

        Args:
            relation: a shared table, written as in SQL.
            node_id: the worker that keeps it.
        """
        arguments = {
            "relation": relation,
            "node_id": node_id,
        }
        return self._run("unshare_table", arguments, wait, timeout)
