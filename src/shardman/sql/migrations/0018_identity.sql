-- What tells a node from its copies.

alter table shardman.local add column system_id text, add column database_id oid;
comment on column shardman.local.system_id is 'system identifier of the server that this database was on when it became a node';
comment on column shardman.local.database_id is 'oid of this database when it became a node; where one of both differs this is a copy';
update shardman.local
   set system_id = (select system_identifier::text from pg_catalog.pg_control_system()),
       database_id = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
 where cluster is not null;

create table shardman.sightings (
    node_id   int primary key,
    seen_at   timestamptz not null default clock_timestamp(),
    timeline  bigint not null,
    flushed   pg_lsn not null,
    problem   text,
    thief     text,
    thief_at  timestamptz
);
comment on table shardman.sightings is 'lord only: how the shardlord has found each node at its last visit, to recognise one that is not what it was';
comment on column shardman.sightings.flushed is 'up to where its WAL was on disk: a server whose WAL ends before was restored to an earlier time';
comment on column shardman.sightings.problem is 'why the server is not taken for the node; null when it is';
comment on column shardman.sightings.thief is 'who received the metadata that this node should have received, by its slot: a copy of it';
