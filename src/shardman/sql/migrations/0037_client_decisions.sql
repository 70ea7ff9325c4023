-- Decisions of clients' transactions over several nodes that outlive the node where they were made: see
-- docs/decisions/0054-prepared-parts-survive-failover.md.

create table shardman.client_decisions (
    gid       text not null,
    role      name not null,
    parts     text[] not null default '{}',
    at        timestamptz not null default clock_timestamp(),
    primary key (gid, role)
);
comment on table shardman.client_decisions is
    'transactions over several nodes that are committed: written by the part on the first node, and carried by its channels to the nodes that would take over from it';
comment on column shardman.client_decisions.gid is 'as in client_transactions';
comment on column shardman.client_decisions.role is 'who committed: nobody else can decide on his transactions';
comment on column shardman.client_decisions.parts is
    'of each part whose node has channels: what shardman.other_part has returned for it, by which a copy of it is known that was prepared on a replica';
comment on column shardman.client_decisions.at is 'when the row was written on this node';

alter table shardman.local add column decides_from xid8;
comment on column shardman.local.decides_from is
    'this node was taken over from: what transactions of clients before this one have decided here counts only where it has arrived on another node';

-- It returns something from here on.
drop function if exists shardman.other_part(text);
