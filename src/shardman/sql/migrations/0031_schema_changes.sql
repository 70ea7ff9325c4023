-- DDL that all nodes are to have: see routines/96_healing.sql and docs/decisions/0037-changes-that-only-go-forward.md.

create table shardman.schema_changes (
    nr        bigint generated always as identity,
    id        uuid not null,
    sender    text not null,
    statement text not null,
    path      text not null,
    tag       text not null,
    target    text not null,
    tables    text[] not null,
    nodes     int[] not null,
    made_at   timestamptz not null,
    settled   bool not null default false,
    primary key (id, sender)
);
comment on table shardman.schema_changes is
    'this node only: DDL of the cluster that this node has, written in the transaction of the DDL. A row goes when all nodes have it';
comment on column shardman.schema_changes.nr is 'the order in which this node has them';
comment on column shardman.schema_changes.id is 'the same on all nodes';
comment on column shardman.schema_changes.sender is 'as whom it was sent; empty: a superuser or the cluster''s role';
comment on column shardman.schema_changes.path is 'the search_path by which its names are read';
comment on column shardman.schema_changes.tag is 'the kind of statement, as event triggers call it';
comment on column shardman.schema_changes.target is 'the sharded table that it is about; empty: none';
comment on column shardman.schema_changes.tables is 'all sharded tables that it is about';
comment on column shardman.schema_changes.nodes is 'the nodes that are to have it';
comment on column shardman.schema_changes.made_at is 'when it was sent, by the clock of the node where it was: those of one table are repeated in this order';
comment on column shardman.schema_changes.settled is 'all of them have it: it is not repeated any more, and the row goes';

create table shardman.pending_changes (
    id        uuid not null,
    sender    text not null,
    node      int not null,
    statement text not null,
    reason    text not null,
    since     timestamptz not null default clock_timestamp(),
    skipped   bool not null default false,
    primary key (id, sender, node)
);
comment on table shardman.pending_changes is 'the lord''s database: DDL that a node lacks which others have, as the shardlord has found it';
comment on column shardman.pending_changes.id is 'see shardman.schema_changes';
comment on column shardman.pending_changes.sender is 'see shardman.schema_changes';
comment on column shardman.pending_changes.node is 'the node that lacks it';
comment on column shardman.pending_changes.reason is 'why the node has not got it yet';
comment on column shardman.pending_changes.since is 'when this was found first';
comment on column shardman.pending_changes.skipped is 'somebody has said that the node is as it shall be: see shardman.skip_change';
