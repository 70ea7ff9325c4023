-- Unique indexes that plain DDL has changed, beside keys and foreign keys: see routines/96_changed_constraints.sql.

comment on table shardman.changed_constraints is
    'this node only: keys, unique indexes, foreign keys and triggers of sharded tables that DDL has changed here and the metadata may not know of yet. A row goes when they do';
comment on column shardman.changed_constraints.kind is 'keys, indexes, foreign_keys or row_triggers: where the definition of the table has it';
