-- Transactions of clients over several nodes: see routines/99_client_transactions.sql.

-- name: parts
-- And what applications have prepared, which has no first node.
select gid, role, first, xid::text, extract(epoch from age)::float from shardman.client_parts()
union all
select x.gid, x.owner, null, x.transaction::text, 0 from pg_prepared_xacts x, shardman.local l
 where x.database = current_database() and not starts_with(x.gid, 'pg_gid_') and not starts_with(x.gid, 'shardman_' || l.cluster || '_')

-- name: note_prepared
select shardman.note_prepared(%s, %s, %s, %s)

-- name: note_lost
select shardman.note_lost_parts(%s, %s, %s)

-- name: lost_here
-- On a node that is back: which of these transactions are prepared still. Ours are ended by whoever has made them.
select x.gid, x.owner, x.transaction::text from pg_prepared_xacts x, shardman.local l
 where x.database = current_database() and x.transaction::text = any (%s) and not starts_with(x.gid, 'shardman_' || l.cluster || '_')

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

-- name: commits_unprepared
-- On the publisher of a channel that stands still: what it is about to send to be committed without having it prepared before, as
-- servers do that lack PostgreSQL's fix of August 2026. Empty transactions alone are skipped so. pgoutput's messages begin
-- with b for the beginning of a part that is prepared, and with K for its commit, each with the transaction's number.
with come as (
    select n, lsn, get_byte(data, 0) as kind,
           ('x' || encode(substr(data, case get_byte(data, 0) when ascii('K') then 27 else 26 end, 4), 'hex'))::bit(32)::bigint as xid
      from pg_logical_slot_peek_binary_changes(%s, null, 1000, 'proto_version', '3', 'publication_names', quote_ident(%s))
           with ordinality as c (lsn, by_xid, data, n)
     where get_byte(data, 0) in (ascii('K'), ascii('b')))
select coalesce(array_agg(k.xid::text order by k.n), '{}'), coalesce(array_agg(k.lsn::text order by k.n), '{}') from come k
 where k.kind = ascii('K') and not exists (select from come b where b.kind = ascii('b') and b.xid = k.xid and b.n < k.n)

-- name: copies_missing
-- On its subscriber: those of them that it has neither prepared nor committed.
select coalesce(array_agg(gid order by lsn), '{}')
  from (select format('pg_gid_%%s_%%s', s.oid, k.xid) as gid, k.lsn
          from pg_subscription s join pg_database d on d.oid = s.subdbid and d.datname = current_database()
         cross join unnest(%s::text[], %s::pg_lsn[]) as k (xid, lsn)
         where s.subname = %s and s.subtwophasestate <> 'd' and k.lsn > shardman.applied_of(s.subname)) as m
 where not exists (select from pg_prepared_xacts x where x.gid = m.gid)
