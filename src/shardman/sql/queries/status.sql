-- name: hurry
set lock_timeout = '1s'

-- name: info
select split_part(current_setting('server_version'), ' ', 1) as version, l.epoch,
       (select count(*) from shardman.drift) as drift, obj_description('shardman'::regnamespace, 'pg_namespace') as schema,
       (select r.rolsuper from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'shardman')
       or exists (select from pg_event_trigger where evtname = 'shardman_ddl_start' and evtenabled <> 'D') as spreads_ddl
  from shardman.local l

-- name: slots
select * from shardman.status_slots order by slot_name

-- name: subscriptions
select subscription, enabled, running, received_lsn::text, latest_end_lsn::text, last_msg_receipt_time, errors
  from shardman.status_subscriptions order by subscription

-- name: channels
select * from shardman.status_channels order by to_node

-- name: waiting
select * from shardman.status_waiting

-- name: aside
select schema_name, table_name, shardman.relation_text(schema_name, table_name) as name, part_name, cmd_id, cmd_type, since, bytes, rows
  from shardman.set_aside order by 1, 2

-- name: sizes
-- Of the copies that are on this node, with what its server has counted of them. Not from shardman.status_partitions, which has
-- no oid: to look for the names once more, or for all replicas, would take longer than all of this.
select p.part_name, case when d.inhparent = p.partition_oid then 'primary' else 'replica' end as here,
       case when p.data not in (select k.relation from shardman.locked_relations k) then pg_total_relation_size(p.data) end as bytes, nullif(p.data_rows, -1)::bigint as rows,
       pg_stat_get_tuples_inserted(p.data) + pg_stat_get_tuples_updated(p.data) + pg_stat_get_tuples_deleted(p.data) as written,
       pg_stat_get_tuples_returned(p.data) + pg_stat_get_tuples_fetched(p.data)
       + (select coalesce(sum(pg_stat_get_tuples_fetched(i.indexrelid)), 0) from pg_index i where i.indrelid = p.data)::bigint as read
  from shardman.partition_relations p
  left join lateral (select i.inhparent from pg_inherits i where i.inhrelid = p.data offset 0) as d on true
 where p.data is not null

-- name: partitions
select relation, part_name, primary_on, replicas_on, stale_on
  from shardman.status_partitions order by relation, length(part_name), part_name

-- name: problems
select subject, problem, hint, false as whole from shardman.node_problems
union all
select subject, problem, hint, true from shardman.cluster_problems

-- name: comparisons
select part_name, node, compared_at, clock_timestamp() - compared_at as age, differing, last_difference
  from shardman.status_comparisons where compared_at is not null

-- name: nodes
select * from shardman.status_nodes order by id

-- name: tables
select t.*, array(select p.part_name from shardman.partitions p
                   where p.relation = t.relation and p.prv is null) as parts
  from shardman.status_tables t order by relation

-- name: commands
select * from shardman.commands where status in ('waiting', 'in progress') order by id

-- name: failovers
select * from shardman.status_failovers order by cmd_id desc limit 5

-- name: deadlocks
select at, node, pid, login, application, circle from shardman.deadlocks where at > clock_timestamp() - interval '1 day' order by at desc limit 5

-- name: shardlord
select holder, epoch, clock_timestamp() - renewed_at as age,
       epoch > 0 and clock_timestamp() - renewed_at < interval '5 seconds' as acting
  from shardman.lease
