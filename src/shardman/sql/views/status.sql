-- What the status page shows. All are readable on any node; those that say "this node" tell of the
-- server they are asked on, the others what this node knows of the cluster.

create or replace view shardman.status_nodes as
    select n.id, n.connstring, n.worker_status::text as status, n.lord,
           n.id = l.node_id as here,
           count(p.part_name) filter (where p.prv is null) as primaries,
           count(p.part_name) filter (where p.prv is not null) as replicas
      from shardman.nodes n
     cross join shardman.local l
      left join shardman.partitions p on p.owner = n.id
     where n.lord or n.worker_status <> 'removed' or p.owner is not null
     group by n.id, l.node_id;
comment on view shardman.status_nodes is 'the members of the cluster and how many copies of partitions each has';

create or replace view shardman.status_tables as
    with workers as (
        select id from shardman.nodes where worker_status = 'active'
    ), spread as (
        select t.relation, w.id, count(p.part_name) as primaries
          from shardman.tables t cross join workers w
          left join shardman.partitions p on p.relation = t.relation and p.owner = w.id and p.prv is null
         group by t.relation, w.id
    ), copies as (
        select relation, part_name, count(*) - 1 as replicas from shardman.partitions group by relation, part_name
    )
    select t.relation, t.expr, t.partitions_count,
           (select jsonb_object_agg(s.id, s.primaries) from spread s where s.relation = t.relation) as primaries_on,
           (select max(s.primaries) - min(s.primaries) from spread s where s.relation = t.relation) as unevenness,
           (select min(c.replicas) from copies c where c.relation = t.relation) as min_replicas,
           (select max(c.replicas) from copies c where c.relation = t.relation) as max_replicas
      from shardman.tables t;
comment on view shardman.status_tables is
    'the sharded tables; primaries_on: number of primaries by node; unevenness: 0 or 1 when they are spread evenly';

create or replace view shardman.status_partitions as
    select p.relation, p.part_name, p.owner as primary_on,
           (select coalesce(array_agg(r.owner order by r.owner), '{}') from shardman.partitions r
             where r.part_name = p.part_name and r.prv is not null) as replicas_on,
           case when here.data is not null and here.data = any (here.children) then 'primary'
                when here.data is not null then 'replica'
                when here.route is not null then 'route' end as here,
           pg_catalog.pg_total_relation_size(here.data) as bytes,
           (select nullif(c.reltuples, -1)::bigint from pg_catalog.pg_class c where c.oid = here.data) as rows
      from shardman.partitions p
     cross join lateral (
           select shardman.find_relation(shardman.data_table(p.part_name)) as data,
                  shardman.find_relation(shardman.route_table(p.part_name)) as route,
                  array(select i.inhrelid from pg_catalog.pg_inherits i
                         where i.inhparent = shardman.find_relation(p.part_name)) as children) as here
     where p.prv is null;
comment on view shardman.status_partitions is
    'the partitions, and what this node has of each: its size and estimated rows where the data are here';

create or replace view shardman.status_slots as
    select s.slot_name::text as slot_name, o.cluster, o.cmd_id,
           coalesce(o.meta_node, o.channel_to) as to_node,
           case when o.meta_node is not null then 'metadata'
                when o.channel_to is not null then 'channel'
                else 'command' end as purpose,
           s.active, s.wal_status,
           pg_catalog.pg_wal_lsn_diff(here.lsn, s.restart_lsn)::bigint as retained_bytes,
           pg_catalog.pg_wal_lsn_diff(here.lsn, s.confirmed_flush_lsn)::bigint as lag_bytes,
           r.replay_lag as lag, r.state
      from pg_catalog.pg_replication_slots s
      join shardman.our_objects o on o.kind = 'replication slot' and o.name = s.slot_name
      left join pg_catalog.pg_stat_replication r on r.pid = s.active_pid
     cross join lateral (
           select case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                       else pg_catalog.pg_current_wal_lsn() end as lsn) as here;
comment on view shardman.status_slots is
    'this node: our replication slots, how far their receivers are behind, and the WAL that is kept for them';

create or replace view shardman.status_subscriptions as
    select s.subname::text as subscription, o.cluster, o.cmd_id, s.subenabled as enabled,
           w.pid is not null as running, w.received_lsn, w.latest_end_lsn, w.last_msg_receipt_time,
           e.apply_error_count as errors
      from pg_catalog.pg_subscription s
      join shardman.our_objects o on o.kind = 'subscription' and o.name = s.subname
      left join pg_catalog.pg_stat_subscription w on w.subid = s.oid and w.relid is null
      left join pg_catalog.pg_stat_subscription_stats e on e.subid = s.oid;
comment on view shardman.status_subscriptions is 'this node: our subscriptions, whether they run, and how often they failed';
