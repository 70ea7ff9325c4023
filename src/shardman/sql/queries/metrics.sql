-- What `shardman metrics` shows, from the views and statistics that everybody may ask who may see them. Each row is a value:
-- the metric's name without "shardman_", its labels without the node's, and the value; src/shardman/metrics/catalog.py says what
-- each means. The quick ones are asked at every scrape, the slow ones, which look at every partition, now and then.

-- name: node
with sessions as (
    select coalesce(nullif(a.state, ''), 'unknown') as state, count(*) as number
      from pg_catalog.pg_stat_activity a where a.backend_type = 'client backend' group by 1
), here as (
    select count(*) filter (where a.wait_event_type = 'Lock') as blocked,
           max(extract(epoch from clock_timestamp() - a.xact_start)) filter (where a.pid <> pg_catalog.pg_backend_pid()) as oldest
      from pg_catalog.pg_stat_activity a
     where a.backend_type = 'client backend' and a.datname = current_database()
), prepared as (
    select count(*) as number, max(extract(epoch from clock_timestamp() - x.prepared)) as oldest
      from pg_catalog.pg_prepared_xacts x where x.database = current_database()
), stats as (
    select * from pg_catalog.pg_stat_database where datname = current_database()
), slots as (
    select s.purpose, coalesce(s.to_node::text, '') as to_node, max(s.retained_bytes) as retained, max(s.lag_bytes) as lag,
           bool_and(s.active) as active
      from shardman.status_slots s group by 1, 2
), subscriptions as (
    select count(*) filter (where not (s.enabled and s.running)) as down, coalesce(sum(s.errors), 0) as errors
      from shardman.status_subscriptions s where s.cmd_id is null
)
select 'node_sessions' as name, jsonb_build_object('state', state) as labels, number::float8 as value from sessions
union all
select v.name, '{}', v.value from here, prepared, stats, subscriptions, shardman.status_waiting w, lateral (values
    ('node_sessions_max', current_setting('max_connections')::float8),
    ('node_sessions_blocked', here.blocked),
    ('node_oldest_transaction_seconds', coalesce(here.oldest, 0)),
    ('node_commits_waiting', w.commits),
    ('node_commit_wait_seconds', coalesce(extract(epoch from w.longest), 0)),
    ('node_prepared_transactions', prepared.number),
    ('node_prepared_transactions_max', current_setting('max_prepared_transactions')::float8),
    ('node_prepared_transaction_age_seconds', coalesce(prepared.oldest, 0)),
    ('node_deadlocks', stats.deadlocks),
    ('node_temporary_file_bytes', stats.temp_bytes),
    ('node_wal_bytes', case when not pg_catalog.pg_is_in_recovery() then pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0') end),
    ('subscriptions_down', subscriptions.down),
    ('subscription_errors', subscriptions.errors),
    ('clock_offset_seconds', extract(epoch from statement_timestamp()) - %(now)s)) as v (name, value)
union all
select 'node_transactions', jsonb_build_object('outcome', v.outcome), v.value from stats, lateral (values
    ('committed', xact_commit), ('rolled_back', xact_rollback)) as v (outcome, value)
union all
select 'node_rows', jsonb_build_object('operation', v.operation), v.value from stats, lateral (values
    ('inserted', tup_inserted), ('updated', tup_updated), ('deleted', tup_deleted), ('fetched', tup_fetched)) as v (operation, value)
union all
select v.name, jsonb_build_object('purpose', purpose, 'to_node', to_node), v.value from slots, lateral (values
    ('slot_retained_bytes', retained::float8), ('slot_lag_bytes', lag::float8), ('slot_active', active::int::float8)) as v (name, value)
union all
select v.name, jsonb_build_object('to_node', c.to_node::text), v.value from shardman.status_channels c, lateral (values
    ('channel_partitions', c.partitions::float8), ('channel_streaming', c.streaming::int), ('channel_synchronous', c.synchronous::int),
    ('channel_waited_for', c.waited_for::int), ('channel_lag_bytes', c.lag_bytes), ('channel_lag_seconds', extract(epoch from c.lag))) as v (name, value)
union all
select 'node_transactions_in_doubt', '{}', count(*) from shardman.client_parts()

-- name: node_slow
with copies as materialized (
    select p.relation, p.part_name, p.here, p.bytes, t.n_tup_ins, t.n_tup_upd, t.n_tup_del, t.seq_tup_read, t.idx_tup_fetch
      from (select s.relation, s.part_name, s.here, s.bytes from shardman.status_partitions s where s.bytes is not null) as p
      join shardman.partition_relations r on r.part_name = p.part_name
      left join pg_catalog.pg_stat_user_tables t on t.relid = r.data
), kept as (
    -- More tables than that would be more series than a dashboard has room for.
    select relation from shardman.tables order by relation limit %(tables)s
), grouped as (
    select 'table' as by, c.relation as name, c.here, sum(c.bytes) as bytes, sum(c.n_tup_ins) as ins, sum(c.n_tup_upd) as upd,
           sum(c.n_tup_del) as del, sum(coalesce(c.seq_tup_read, 0) + coalesce(c.idx_tup_fetch, 0)) as read
      from copies c join kept using (relation) group by c.relation, c.here
    union all
    select 'partition', c.part_name, c.here, c.bytes, c.n_tup_ins, c.n_tup_upd, c.n_tup_del, coalesce(c.seq_tup_read, 0) + coalesce(c.idx_tup_fetch, 0)
      from copies c where %(partitions)s
)
select by || '_bytes' as name, jsonb_build_object(by, name, 'copy', here) as labels, bytes::float8 as value from grouped
union all
select g.by || '_rows', jsonb_build_object(g.by, g.name, 'operation', v.operation), v.value::float8 from grouped g, lateral (values
    ('inserted', ins), ('updated', upd), ('deleted', del), ('read', read)) as v (operation, value)
 where g.here = 'primary'
union all
select 'node_database_bytes', '{}', pg_catalog.pg_database_size(current_database())
union all
select 'node_problems', '{}', count(*) from shardman.node_problems
union all
select 'node_tables_set_aside', '{}', count(*) from shardman.set_aside

-- name: lord
with running as (
    select c.cmd_type, c.status::text as status, count(*) as number,
           max(extract(epoch from clock_timestamp() - coalesce(c.started_at, c.submitted_at))) as oldest,
           count(*) filter (where c.waits_for is not null and c.started_at < clock_timestamp() - interval '1 minute') as stuck
      from shardman.cmd_log c where c.status in ('waiting', 'in progress') group by 1, 2
), kept as (
    select * from shardman.status_tables order by relation limit %(tables)s
), failovers as (
    select count(*) as number, max(extract(epoch from c.ended_at)) as last
      from shardman.cmd_log c where c.cmd_type = 'failover' and c.status in ('success', 'done')
)
select 'commands' as name, jsonb_build_object('type', cmd_type, 'status', status) as labels, number::float8 as value from running
union all
select v.name, '{}', v.value from shardman.lease l, failovers f, lateral (values
    ('shardlord_acting', (l.epoch > 0 and clock_timestamp() - l.renewed_at < interval '5 seconds')::int::float8),
    ('shardlord_sign_of_life_age_seconds', case when l.epoch > 0 then extract(epoch from clock_timestamp() - l.renewed_at) end),
    ('shardlord_epoch', l.epoch),
    ('network_suspicion', (l.suspicion is not null)::int),
    ('failovers', f.number),
    ('failover_last_timestamp_seconds', f.last)) as v (name, value)
union all
select v.name, '{}', v.value from (select coalesce(max(oldest) filter (where status = 'waiting'), 0) as waiting,
                                          coalesce(max(oldest) filter (where status = 'in progress'), 0) as running, coalesce(sum(stuck), 0) as stuck
                                     from running) as r, lateral (values
    ('command_oldest_waiting_seconds', r.waiting::float8), ('command_oldest_running_seconds', r.running), ('commands_stuck', r.stuck)) as v (name, value)
union all
select v.name, jsonb_build_object('node', n.id::text), v.value from shardman.status_nodes n, lateral (values
    ('node_draining', coalesce(n.draining, false)::int::float8), ('node_in_maintenance', (n.away_until is not null)::int)) as v (name, value)
 where n.status is not null
union all
select 'node_zone', jsonb_build_object('node', n.id::text, 'zone', n.zone), 1 from shardman.status_nodes n where n.zone is not null
union all
select 'node_copies', jsonb_build_object('node', n.id::text, 'copy', k.copy), count(c.part_name)
  from shardman.nodes n cross join (values ('primary'), ('replica'), ('stale')) as k (copy)
  left join shardman.status_copies c on c.node = n.id and c.role = k.copy
 where n.worker_status in ('active', 'rm_in_progress') group by n.id, k.copy
union all
select 'tables', '{}', count(*) from shardman.tables
union all
select v.name, jsonb_build_object('table', t.relation), v.value from kept t, lateral (values
    ('table_partitions', t.partitions_count::float8), ('table_replicas_wanted', t.replevel), ('table_partitions_below_level', t.below_level),
    ('table_replicas_stale', t.stale_replicas), ('table_unevenness', t.unevenness)) as v (name, value)
union all
select 'schema_changes_pending', '{}', count(*) from shardman.pending_changes where not skipped

-- name: lord_slow
select 'commands_ended' as name, jsonb_build_object('type', c.cmd_type, 'status', c.status) as labels, count(*)::float8 as value
  from shardman.cmd_log c where c.ended_at is not null group by c.cmd_type, c.status
union all
select 'cluster_problems', '{}', count(*) from shardman.cluster_problems
union all
select v.name, '{}', v.value
  from (select count(*) filter (where differing > 0) as differing, max(extract(epoch from clock_timestamp() - compared_at)) as oldest,
               count(*) filter (where compared_at is null) as never from shardman.status_comparisons) as c, lateral (values
    ('replicas_differing', c.differing::float8), ('replica_comparison_age_seconds', coalesce(c.oldest, 0)), ('replicas_never_compared', c.never)) as v (name, value)
