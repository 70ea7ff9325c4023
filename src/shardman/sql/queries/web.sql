-- What the page shows beside `shardman status`: each as the role of whoever looks.

-- name: may_act
select pg_has_role(r.oid, 'usage') from pg_roles r where r.rolname = 'shardman_operator'

-- name: history
select * from shardman.commands order by id desc limit %s

-- name: command
select * from shardman.commands where id = %s

-- name: steps
select s.attempt, s.n, s.phase, s.title, s.state, s.started_at, s.ended_at, s.error,
       coalesce(s.ended_at, clock_timestamp()) - s.started_at as duration
  from shardman.cmd_steps s where s.cmd_id = %s order by s.attempt, s.n, s.started_at

-- name: parts
select * from shardman.commands where parent = %s order by id limit 500

-- name: sessions
-- On one node: who is there, and who waits for whom; whoever is waited for and waits for nobody first.
with there as materialized (
    select a.pid, a.usename, a.application_name, host(a.client_addr) as client, a.state, a.wait_event_type, a.wait_event,
           a.xact_start, a.state_change, pg_blocking_pids(a.pid) as blocked_by,
           left(regexp_replace(a.query, '^(\s|--[^\n]*\n)+', ''), 200) as query
      from pg_stat_activity a
     where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
       -- Our own that have nothing to do.
       and not (a.state = 'idle' and a.application_name ~ '^(shardman|from_[0-9]+$)')
), seen as (
    select t.*, exists (select from there w where t.pid = any (w.blocked_by)) as blocks from there t
)
select * from seen s
 order by s.blocks and s.blocked_by = '{}' desc, cardinality(s.blocked_by) desc, s.xact_start nulls last limit 100

-- name: in_doubt
select gid, role, first, age from shardman.client_parts() order by age desc limit 100

-- name: drift
select * from shardman.drift limit 100

-- name: traffic
-- On one node: what its servers have counted of a partition's data.
select s.n_tup_ins + s.n_tup_upd + s.n_tup_del as writes,
       coalesce(s.seq_tup_read, 0) + coalesce(s.idx_tup_fetch, 0) as reads, s.n_live_tup as rows, s.n_dead_tup as dead,
       s.last_vacuum, s.last_autovacuum, s.last_analyze, s.last_autoanalyze
  from shardman.partition_relations p join pg_stat_user_tables s on s.relid = p.data where p.part_name = %s
