-- What applications have prepared, and what became of it when its node was taken over from: see routines/99_lost_parts.sql.

create table shardman.prepared_seen (
    node int not null,
    xid  text not null,
    gid  text not null,
    role name not null,
    primary key (node, xid)
);
comment on table shardman.prepared_seen is
    'on the lord: what others than clients of shardman had prepared on each node when the shardlord looked last; the names are not known to replicas';
comment on column shardman.prepared_seen.xid is 'the number of the transaction on that node';

create table shardman.lost_parts (
    node     int not null,
    xid      text not null,
    gid      text,
    role     name,
    cmd_id   bigint,
    at       timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    primary key (node, xid)
);
comment on table shardman.lost_parts is
    'on the lord: transactions that were prepared on a node, and rolled back when others took over from it, for nobody had committed them';
comment on column shardman.lost_parts.xid is 'the number of the transaction on that node';
comment on column shardman.lost_parts.gid is 'the name by which it was prepared; null while that is not known: the shardlord had not seen it, and the node is not back';
comment on column shardman.lost_parts.cmd_id is 'the command that rolled it back';
comment on column shardman.lost_parts.ended_at is 'when the node was back, and it was rolled back there, too';
