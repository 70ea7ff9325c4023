-- Transactions of clients over several nodes: see routines/99_client_transactions.sql.

-- name: parts
select gid, role, first, xid::text, extract(epoch from age)::float from shardman.client_parts()

-- name: outcome
select shardman.client_outcome(%s, %s, %s::xid8)

-- name: forget
select shardman.forget_client_transactions(%s, %s::pg_snapshot, make_interval(secs => %s))

-- name: snapshot
select pg_current_snapshot()::text

-- name: whose
select current_user <> %s and not r.rolsuper from pg_roles r where r.rolname = current_user
