-- Shared tables that have lost their primary key get one in the same transaction: see shardman.note_keyless in routines/96_shared_keys.sql.

create table shardman.keyless_tables (rel oid primary key, relation text not null);
comment on table shardman.keyless_tables is
    'shared tables whose primary key an open transaction has dropped: nobody ever sees a row of another transaction, as it ends without any';
comment on column shardman.keyless_tables.relation is 'the table''s name in the metadata';
