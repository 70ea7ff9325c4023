"""Databases of one server that act as the nodes of a cluster, without a shardlord.

Metadata reaches them as an apply worker would write it. Their routes lead from database to database.
"""

from __future__ import annotations

import itertools
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from shardman.pg.connection import SyncConnection

LORD = 0
numbers = itertools.count()


class Node:
    """One database that acts as a node."""

    def __init__(self, node_id: int, dsn: str, dbname: str, user: str | None = None) -> None:
        self.id = node_id
        self.dsn = psycopg.conninfo.make_conninfo(
            dsn, dbname=dbname, **({"user": user} if user else {})
        )
        self.conn = self.connect()

    def connect(self, **options: Any) -> SyncConnection:
        """One more session, as the application has them."""
        return psycopg.connect(self.dsn, **{"autocommit": True, **options})

    @property
    def password(self) -> str:
        """What the server asks for: of its superuser, and of the roles that tests give it."""
        return self.conn.info.password

    def rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, or none for a statement without any."""
        done = self.conn.execute(query.encode(), params or None)
        return done.fetchall() if done.description else []

    def value(self, query: str, *params: Any) -> Any:
        """The one value that a query gives."""
        (row,) = self.rows(query, *params)
        return row[0]

    def run(self, script: str) -> None:
        """Statements without parameters."""
        self.conn.execute(script.encode())

    def alone(self, script: str) -> None:
        """DDL that is not spread: as where one node was changed behind the cluster's back."""
        self.run(f"set shardman.ddl = 'here'; {script}; set shardman.ddl = ''")

    def receive(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        """Writes metadata in one transaction, as the apply worker does."""
        with self.connect(autocommit=False) as worker:
            worker.execute("set local session_replication_role = replica")
            worker.execute("set local search_path = ''")
            for query, params in statements:
                worker.execute(query.encode(), params)

    def reconcile(self, relation: str | None = None) -> int:
        """How many differences are left."""
        return int(self.value("select shardman.reconcile(%s)", relation))

    def drift(self) -> dict[str, str]:
        """What the node says is wrong, by subject."""
        return dict(self.rows("select subject, problem from shardman.drift"))

    def describe(self, relation: str, expr: str, count: int = 4) -> dict[str, Any]:
        """What `create_hash_partitions` would be told."""
        found = self.value("select shardman.describe_table(%s, %s, %s)", relation, expr, count)
        assert isinstance(found, dict)
        return found


class Nodes:
    """A cluster: node 0 is the lord's."""

    def __init__(self, nodes: list[Node]) -> None:
        self.all = nodes

    def __getitem__(self, node_id: int) -> Node:
        return self.all[node_id]

    def receive(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        """Metadata for every node."""
        for node in self.all:
            node.receive(*statements)

    def shard(self, relation: str, expr: str, count: int = 4, home: int = 1) -> dict[str, Any]:
        """Makes the table of node `home` a sharded one, rows and all; returns its definition."""
        node = self[home]
        found = node.describe(relation, expr, count)
        assert found["obstacles"] == []
        definition = found["definition"]
        shadow, parts = make_shadow(node, definition)
        fill(node, found["relation"], shadow, parts)
        for part in parts:
            node.rows("select shardman.make_data_indexes(%s, %s)", part, Jsonb(definition))
        node.rows("select shardman.name_sequences(%s, %s)", Jsonb(definition), shadow)
        name = node.value("select (shardman.relation_parts(%s))[2]", found["relation"])
        schema = node.value("select (shardman.relation_parts(%s))[1]", found["relation"])
        for old, new in ((name, "aside"), (shadow.split(".")[-1], name)):
            node.conn.execute(
                sql.SQL("alter table {} rename to {}").format(
                    sql.Identifier(schema, old), sql.Identifier(new)
                )
            )
        node.conn.execute(sql.SQL("drop table {}").format(sql.Identifier(schema, "aside")))
        whole = Jsonb(definition["shared_indexes"])
        node.rows("select shardman.lay_whole_indexes(%s, %s)", found["relation"], whole)
        self.receive(*table_rows(found, count, home, parts))
        return dict(definition)

    def own(self, part: str, owner: int, *nodes: int) -> None:
        """Tells nodes (all, unless some are named) that a partition's primary is on another node."""
        query = "update shardman.partitions set owner = %s where part_name = %s"
        for node in [self[n] for n in nodes] or self.all:
            node.receive((query, (owner, part)))

    def move(self, part: str, src: int, dest: int) -> None:
        """Moves the rows and exchanges data table and route on both nodes; metadata stays."""
        source, target = self[src], self[dest]
        data = source.value("select shardman.sql_name(shardman.data_table(%s))", part)
        target.rows("select shardman.make_data_table(%s)", part)
        columns = source.value("select shardman.copy_columns(shardman.data_table(%s))", part)
        with (
            source.conn.cursor().copy(f"copy {data} ({columns}) to stdout".encode()) as out,
            target.conn.cursor().copy(f"copy {data} ({columns}) from stdin".encode()) as into,
        ):
            for block in out:
                into.write(block)
        target.rows("select shardman.make_data_indexes(%s)", part)
        source.rows("select shardman.make_route(%s, shardman.node_server(%s))", part, dest)
        source.rows("select shardman.cut_over_out(%s, %s)", part, f"aside_{next(numbers)}")
        target.rows("select shardman.cut_over_in(%s)", part)

    def close(self) -> None:
        for node in self.all:
            node.conn.close()


def make_shadow(node: Node, definition: dict[str, Any]) -> tuple[str, list[str]]:
    """The sharded table under another name, empty; that name and the partitions'."""
    relation = definition["relation"]
    shadow = node.value(
        "select shardman.relation_text((shardman.relation_parts(%s))[1], 'shadow')", relation
    )
    node.rows("select shardman.make_parent(%s, %s)", Jsonb(definition), shadow)
    parts = []
    for k in range(definition["partitions_count"]):
        part = node.value("select shardman.suffixed(%s, %s)", relation, f"_{k}")
        count = definition["partitions_count"]
        args = (Jsonb(definition), shadow, part, count, k)
        node.rows("select shardman.make_partition(%s, %s, %s, %s, %s)", *args)
        node.rows(
            "select shardman.make_data_table(%s, %s, %s, false)", part, shadow, Jsonb(definition)
        )
        node.rows("select shardman.attach_data(%s)", part)
        parts.append(part)
    return shadow, parts


def fill(node: Node, relation: str, shadow: str, parts: list[str]) -> None:
    """Every row into the shadow, where PostgreSQL finds its partition."""
    columns = node.value("select shardman.copy_columns(%s)", relation)
    node.run(f"insert into {shadow} ({columns}) select {columns} from {relation}")
    assert parts


def table_rows(
    found: dict[str, Any], count: int, home: int, parts: list[str]
) -> list[tuple[str, tuple[Any, ...]]]:
    """The metadata of a new table, all of it on one node."""
    definition = Jsonb(found["definition"])
    relation, expr = found["relation"], found["definition"]["expr"]
    table = (relation, expr, count, found["create_sql"], home, definition)
    partition = "insert into shardman.partitions (part_name, owner, relation) values (%s, %s, %s)"
    return [
        ("insert into shardman.tables values (%s, %s, %s, %s, %s, %s)", table),
        *((partition, (part, home, relation)) for part in parts),
    ]
