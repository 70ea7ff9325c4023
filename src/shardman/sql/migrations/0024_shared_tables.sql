-- Shared tables: a plain table of which every worker has a full copy, written through (routines/98_shared_writes.sql).

create table shardman.shared_tables (
    relation     text primary key,
    initial_node int not null references shardman.nodes,
    definition   jsonb not null
);
comment on table shardman.shared_tables is 'the shared tables';
comment on column shardman.shared_tables.relation is 'as regclass prints it with search_path = public';
comment on column shardman.shared_tables.initial_node is 'the worker whose plain table it was';
comment on column shardman.shared_tables.definition is 'what it was when it became shared: see shardman.define_shared';

create table shardman.shared_copies (
    relation text not null references shardman.shared_tables on delete cascade,
    node     int not null references shardman.nodes,
    primary key (relation, node)
);
comment on table shardman.shared_copies is
    'the workers that have a full copy of a shared table, to which all others write through. Its lock row on the first of them, '
    'by number, is what writers wait for';

create table shardman.shared_locks (
    relation text,
    kind     text check (kind in ('turn', 'work')),
    primary key (relation, kind)
);
alter table shardman.shared_locks enable row level security;
comment on table shardman.shared_locks is
    'this node only: a lock on a row is held by whoever writes to the shared table, to the end of his transaction; its owner alone can have it';
comment on column shardman.shared_locks.kind is
    'turn: on the first node of the table, of the one writer in the cluster. work: on each node, of the session that writes to the copy there';
