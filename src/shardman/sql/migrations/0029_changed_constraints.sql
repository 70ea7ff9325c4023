-- Keys and foreign keys that plain DDL has changed: see routines/96_changed_constraints.sql and docs/decisions/0040-a-stand-in-is-altered.md.

create table shardman.changed_constraints (
    relation text not null,
    name     text not null,
    kind     text not null,
    item     jsonb,
    primary key (relation, name)
);
comment on table shardman.changed_constraints is
    'this node only: keys and foreign keys of sharded tables that DDL has added or dropped here and the metadata may not know of yet. A row goes when they do';
comment on column shardman.changed_constraints.kind is 'keys or foreign_keys: where the definition of the table has it';
comment on column shardman.changed_constraints.item is 'as the definition has it; null: it was dropped';
