-- Statements arrive on other nodes as who sent them, through road logins (routines/73_roads.sql).

create table shardman.road_secret (
    only_row bool primary key default true check (only_row),
    secret   text not null check (octet_length(secret) >= 32)
);
revoke all on shardman.road_secret from public;
comment on table shardman.road_secret is
    'what the passwords of road logins are made from, the same on all nodes; for the owner of the schema only';
comment on column shardman.road_secret.secret is 'random; a new one gives every road login a new password';

alter table shardman.nodes add column roads bool not null default false;
comment on column shardman.nodes.roads is
    'whether the node has made its road logins: from then on ordinary roles of other nodes reach it by these. Until then, while '
    'a cluster is upgraded, they keep the mapping they had';
