-- Partitions out of which something was taken: see routines/94_missing.sql.

create table shardman.emptied (
    part_name text primary key
);
revoke all on shardman.emptied from public;
comment on table shardman.emptied is
    'this node only: partitions out of which the running transaction has taken something; when it ends there is a row of none';
comment on column shardman.emptied.part_name is 'as in shardman.partitions';
