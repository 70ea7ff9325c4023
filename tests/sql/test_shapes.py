"""What must be the same on every node and on every copy, and is not, is told: each kind of it."""

from __future__ import annotations

import psycopg
import pytest

from shardman.model.shapes import differences
from shardman.nodes.shapes import shapes
from sql.databases import Nodes

#: What `create_hash_partitions` carries to every node.
TABLE = """
create table acc (id int primary key, "odd name" text collate "C" default 'x', v numeric(9, 2) not null,
                  twice numeric generated always as (v * 2) stored, check (v < 1000), unique (id, v));
create index on acc (v) where v > 3;
create unique index on acc (id, v) where v > 2;
create statistics acc_s on v, twice from acc;
alter table acc enable row level security;
create policy mine on acc for select using (v > 0);
grant select (v), insert on acc to public;
"""
REPLICA = """
select shardman.make_data_table('acc_0'), shardman.make_data_indexes('acc_0');
select shardman.make_read_only('acc_0_data')
"""


@pytest.fixture
def acc(nodes: Nodes) -> Nodes:
    """acc_1 on node 2, the others on node 1, and a replica of acc_0 on node 2."""
    nodes[1].run(TABLE)
    nodes.shard("acc", "id")
    nodes.move("acc_1", 1, 2)
    nodes.own("acc_1", 2)
    nodes[2].run(REPLICA)
    insert = "insert into shardman.partitions (part_name, owner, prv, relation) values ('acc_0', 2, 1, 'acc')"
    nodes.receive((insert, ()))
    return nodes


def found(nodes: Nodes) -> list[str]:
    looks = {node.id: shapes(node.conn) for node in nodes.all}
    primaries = {"acc_0": 1, "acc_1": 2, "acc_2": 1, "acc_3": 1}
    return [str(f) for f in differences(looks, primaries)]


DAMAGES = [
    (2, "alter table acc add column more int", "acc on node 2: its columns differ"),
    (2, 'alter table acc alter "odd name" type varchar(9)', 'has "odd name" character varying(9)'),
    (2, "alter table acc alter \"odd name\" set default 'y'", 'has "odd name" text collate'),
    (2, "alter table acc add check (v > 5)", "acc on node 2: its constraints differ"),
    (2, "alter table acc drop constraint acc_v_check", "lacks CHECK ((v < (1000)::numeric))"),
    (0, "create index on acc (v)", "acc on node 0: its indexes differ"),
    (
        0,
        "grant update (v) on acc to public",
        "its rights differ from those of most nodes: has UPDATE (v) to public",
    ),
    (2, "drop policy mine on acc", "acc on node 2: its policies differ"),
    (
        2,
        "comment on policy mine on acc is 'm'",
        "its comments differ from those of most nodes: has of policy",
    ),
    (2, "alter table acc disable row level security", "lacks enabled"),
    (0, "create rule r as on delete to acc do also select 1", "acc on node 0: its rules differ"),
    (
        2,
        """create function t() returns trigger language plpgsql as 'begin return new; end';
           create trigger t before insert on acc for each row execute function t()""",
        "acc on node 2: its triggers differ",
    ),
    (
        2,
        "drop index acc_v_idx_0",
        "On that node: set shardman.ddl = 'here'; create index on acc_0_data USING btree (v) WHERE",
    ),
    (
        2,
        "create index on acc_0_data (twice)",
        "acc_0 on node 2: the replica's indexes differ from the primary's: has index",
    ),
    (2, "alter table acc_0_data drop constraint acc_pkey_0", "lacks PRIMARY KEY (id)"),
    (2, "alter table acc_0_data alter v drop not null", "has v numeric(9,2) (Change"),
    (
        2,
        "alter table acc_0_data set unlogged",
        "the replica's storage differ from the primary's: has unlogged",
    ),
    (1, "drop statistics acc_s_2", "acc_2 on node 1: the primary's extended statistics differ"),
]


def test_each_difference_is_told_and_what_is_equal_is_not(acc: Nodes) -> None:
    assert found(acc) == []
    for node, statement, said in DAMAGES:
        with acc[node].conn.transaction() as change:
            acc[node].alone(statement)
            seen = found(acc)
            assert any(said in f for f in seen), (statement, seen)
            raise psycopg.Rollback(change)
    assert found(acc) == []
