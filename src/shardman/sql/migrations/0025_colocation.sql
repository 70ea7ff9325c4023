-- Colocated tables: partitions of one number lie on the same nodes (docs/commands/colocated.md).

alter table shardman.tables add column colocation bigint;
comment on column shardman.tables.colocation is
    'the group of tables whose partitions of one number lie together: the number of the command that has founded it, the same for all of them; '
    'null: the table is alone. A name of one of them would have to change when that one is renamed or dropped';
