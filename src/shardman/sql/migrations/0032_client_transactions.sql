-- Transactions of clients over several nodes: see routines/99_client_transactions.sql and
-- docs/decisions/0048-transactions-of-clients-over-nodes.md.

create table shardman.client_transactions (
    gid       text not null,
    role      name not null,
    nodes     int[] not null,
    at        timestamptz not null default clock_timestamp(),
    primary key (gid, role)
);
comment on table shardman.client_transactions is
    'this node only: the parts here of transactions over several nodes that clients have committed. A row goes when no node has a part of it prepared any more';
comment on column shardman.client_transactions.gid is
    'shardman_<cluster>_x<number of its first node>_<xid there>_<random>: by it the parts are prepared on all nodes but the first';
comment on column shardman.client_transactions.role is 'who committed: nobody else can decide on his transactions';
comment on column shardman.client_transactions.nodes is 'on the first node: the others that have parts; empty elsewhere';

create table shardman.clients_let_in (
    role oid primary key
);
comment on table shardman.clients_let_in is 'this node only: the roles that have got USAGE on the schema from shardman.let_clients_in, to be taken from them again';
