-- One picture of all nodes: see routines/99_commits_seen.sql.

-- name: horizon
select pg_catalog.pg_current_snapshot()::text as horizon

-- name: under_way
select gid from shardman.commits_under_way() as c (gid)

-- name: begin
rollback; begin isolation level repeatable read read only

-- name: since
select gid, nodes from shardman.commits_since(%s::text::pg_catalog.pg_snapshot)

-- name: seen
select gid, nodes from shardman.commits_seen(%s)

-- name: pause
select pg_catalog.pg_sleep(%s)

-- name: forwarded
select shardman.uses_other_nodes() as forwarded

-- name: hold
select shardman.hold_commits_here()

-- name: committing
select string_agg(format('%s (process %s)', a.usename, a.pid), ', ' order by a.xact_start) from shardman.deciding() as d (xact)
  join pg_locks k on k.virtualtransaction = d.xact and k.relation = 'shardman.commit_gate'::regclass
  join pg_stat_activity a on a.pid = k.pid

-- name: bounds
select pg_catalog.set_config('lock_timeout', %s, true), pg_catalog.set_config('idle_in_transaction_session_timeout', %s, true)

-- name: restore_point
select pg_catalog.pg_create_restore_point(%s)::text as lsn

-- name: running
select id, cmd_type from shardman.cmd_log where status = 'in progress' order by id limit 1

-- name: look_for_holds
select id, pid, session, wish from shardman.look_for_holds()

-- name: tell_hold
select shardman.tell_hold(%s, %s, %s)

-- name: end_hold
update shardman.commit_holds set failed = %s, released = case when %s::text is null then pg_catalog.clock_timestamp() end where id = %s
