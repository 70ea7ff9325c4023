-- Deadlocks over several nodes that the shardlord has broken: see routines/99_deadlocks.sql and docs/decisions/0051-deadlocks-over-nodes.md.

create table shardman.deadlocks (
    id          text primary key,
    at          timestamptz not null default clock_timestamp(),
    node        int not null,
    pid         int not null,
    login       name not null,
    application text not null,
    circle      text not null,
    told        bool not null default false
);
comment on table shardman.deadlocks is
    'on the lord: all deadlocks over several nodes of the last days, and whose transaction was cancelled for each; elsewhere those of sessions of this node';
comment on column shardman.deadlocks.node is 'where the session is whose transaction was cancelled';
comment on column shardman.deadlocks.pid is 'the process of that session';
comment on column shardman.deadlocks.login is 'as whom it has connected';
comment on column shardman.deadlocks.application is 'its application_name';
comment on column shardman.deadlocks.circle is 'who waited for whom';
comment on column shardman.deadlocks.told is 'its client has asked why its statement was cancelled';
