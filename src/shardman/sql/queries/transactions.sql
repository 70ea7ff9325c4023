-- Transactions of clients over several nodes: see routines/99_client_transactions.sql.

-- name: parts
select gid, role, first, xid::text, extract(epoch from age)::float from shardman.client_parts()

-- name: outcome
select shardman.client_outcome(%s, %s, %s::xid8)

-- name: forget
select shardman.forget_client_transactions(%s, %s::pg_snapshot, make_interval(secs => %s))

-- name: snapshot
-- Not while a copy of a part waits for its decision.
select pg_current_snapshot()::text,
       exists (select from pg_prepared_xacts where starts_with(gid, 'pg_gid_') and prepared < clock_timestamp() - interval '1 minute')

-- name: arrived
select shardman.decision_arrived(%s, %s, %s)

-- name: place
-- In the lord's database: whether what a node has decided counts where it says so, or only where it has arrived.
select case when not exists (select from shardman.returns_of(n.id)) then 'here'
            when exists (select from shardman.partitions p where p.owner = n.id and p.prv is null) then 'both'
            else 'elsewhere' end
  from shardman.nodes n where n.id = %s

-- name: left_prepared
select gid, xid from shardman.prepared_from(%s)

-- name: deciding
select coalesce(array_agg(d), '{}') from shardman.deciding() as d

-- name: end_deciding
select shardman.end_deciding(%s)

-- name: parts_decided
select coalesce(array_agg(x), '{}') from shardman.parts_decided(%s, %s) as x

-- name: members
select coalesce(array_agg(id), '{}') from shardman.nodes where worker_status = 'active'

-- name: whose
select current_user <> %s and not r.rolsuper from pg_roles r where r.rolname = current_user
