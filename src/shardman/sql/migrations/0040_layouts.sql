-- How tables lay that plain DDL has dropped: see routines/97_layouts.sql.

create table shardman.layouts (
    relation   text primary key,
    layout     jsonb not null,
    dropped_at timestamptz not null default clock_timestamp(),
    failure    text
);
comment on table shardman.layouts is
    'this node only: how sharded and shared tables lay that were dropped by DROP TABLE, so that those that are made again lie so again';
comment on column shardman.layouts.layout is
    'kind (sharded, shared), keys, refers (foreign keys); of sharded ones expr, partitions_count, replevel, beside (the tables of its group)';
comment on column shardman.layouts.failure is 'why a table of that name, which was made again on this node, has stayed plain';
