-- Reading all nodes as one, and holding commits over several: see docs/decisions/0052-one-picture-of-all-nodes.md.

alter table shardman.client_transactions add column xid xid8 not null default pg_current_xact_id();
comment on column shardman.client_transactions.xid is 'the transaction on this node that has written the row: by it readers find those of the last instants';
create index client_transactions_xid on shardman.client_transactions (xid);

create table shardman.commit_gate ();
comment on table shardman.commit_gate is
    'has no rows: a client locks it (ROW SHARE) on the first node of a transaction over several until that has decided; who wants no decisions for a while, on all nodes (EXCLUSIVE)';
