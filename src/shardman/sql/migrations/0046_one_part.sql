-- A transaction has one part on each node, and writes it down once: see routines/99_client_transactions.sql.

-- Rows of former versions have none. They are forgotten within minutes.
alter table shardman.client_transactions add column xact xid8;
alter table shardman.client_transactions alter column xact set default pg_current_xact_id();
comment on column shardman.client_transactions.xact is 'the transaction of this node that is the part; null: written by a former version';
create index client_transactions_xact on shardman.client_transactions (xact);
