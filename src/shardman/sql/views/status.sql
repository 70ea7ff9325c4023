-- What the status page shows. All are readable on any node; those that say "this node" tell of the
-- server they are asked on, the others what this node knows of the cluster.

create or replace view shardman.status_nodes as
    select n.id, n.connstring, n.worker_status::text as status, n.lord,
           n.id = l.node_id as here,
           count(p.part_name) filter (where p.prv is null) as primaries,
           count(p.part_name) filter (where p.prv is not null) as replicas,
           n.zone, n.draining, n.away_until
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
        select relation, part_name, count(*) filter (where prv is not null and stale_since is null) as replicas,
               count(*) filter (where prv is not null and stale_since is not null) as stale
          from shardman.partitions group by relation, part_name
    )
    select t.relation, t.expr, t.partitions_count,
           (select jsonb_object_agg(s.id, s.primaries) from spread s where s.relation = t.relation) as primaries_on,
           (select max(s.primaries) - min(s.primaries) from spread s where s.relation = t.relation) as unevenness,
           (select min(c.replicas) from copies c where c.relation = t.relation) as min_replicas,
           (select max(c.replicas) from copies c where c.relation = t.relation) as max_replicas,
           t.replevel, t.sync,
           (select count(*) from copies c where c.relation = t.relation and c.replicas < t.replevel) as below_level,
           (select coalesce(sum(c.stale), 0)::bigint from copies c where c.relation = t.relation) as stale_replicas
      from shardman.tables t;
comment on view shardman.status_tables is
    'the sharded tables; primaries_on: number of primaries by node; unevenness: 0 or 1 when they are spread evenly; '
    'min_replicas, max_replicas: of one partition, of those that follow their primary; replevel: how many were asked for; '
    'below_level: partitions that have fewer; stale_replicas: those that do not follow';

create or replace view shardman.status_copies as
    with recursive chain as (
        select p.part_name, p.owner, p.nxt, p.relation, p.stale_since, 0 as place
          from shardman.partitions p where p.prv is null
        union all
        select p.part_name, p.owner, p.nxt, p.relation, p.stale_since, c.place + 1
          from chain c join shardman.partitions p on p.part_name = c.part_name and p.owner = c.nxt
         -- A list that is damaged may be a circle.
         where p.prv is not null and c.place < 1000
    )
    select c.relation, c.part_name, c.place, c.owner as node,
           case when c.place = 0 then 'primary' when c.stale_since is null then 'replica' else 'stale' end as role,
           c.stale_since, c.place > 0 and c.stale_since is null and t.sync and n.away_until is null as synchronous
      from chain c join shardman.tables t using (relation) left join shardman.nodes n on n.id = c.owner;
comment on view shardman.status_copies is
    'the copies of each partition in the order of succession; a stale one does not follow its primary; '
    'synchronous: commits wait for it';

create or replace view shardman.status_partitions as
    select p.relation, p.part_name, p.owner as primary_on,
           coalesce(r.replicas_on, '{}') as replicas_on,
           case when data_in.inhparent = p.partition_oid then 'primary'
                when p.data is not null then 'replica'
                when p.route is not null then 'route' end as here,
           case when p.data not in (select k.relation from shardman.locked_relations k)
                then pg_catalog.pg_total_relation_size(p.data) end as bytes, nullif(p.data_rows, -1)::bigint as rows,
           coalesce(r.stale_on, '{}') as stale_on
      from shardman.partition_relations p
      left join (select c.part_name, array_agg(c.node order by c.place) as replicas_on,
                        array_agg(c.node order by c.place) filter (where c.role = 'stale') as stale_on
                   from shardman.status_copies c where c.place > 0 group by c.part_name) as r on r.part_name = p.part_name
      left join lateral (select i.inhparent from pg_catalog.pg_inherits i where i.inhrelid = p.data offset 0) as data_in on true;
comment on view shardman.status_partitions is
    'the partitions, and what this node has of each: its size and estimated rows where the data are here, no size while somebody has the table for himself; '
    'replicas_on: in the order of succession, with those of stale_on, which do not follow';

create or replace view shardman.status_slots as
    select s.slot_name::text as slot_name, o.cluster, o.cmd_id,
           coalesce(o.meta_node, o.channel_to) as to_node,
           case when o.meta_node is not null then 'metadata'
                when o.channel_to is not null then 'channel'
                else 'command' end as purpose,
           s.active, s.wal_status,
           pg_catalog.pg_wal_lsn_diff(here.lsn, s.restart_lsn)::bigint as retained_bytes,
           pg_catalog.pg_wal_lsn_diff(here.lsn, s.confirmed_flush_lsn)::bigint as lag_bytes,
           -- The receiver's last word; with nothing on its way there is none.
           case when r.state = 'streaming' then coalesce(r.replay_lag, interval '0') end as lag, r.state, r.sync_state,
           current_setting('synchronous_standby_names') ~ ('(^|[ ,("])' || s.slot_name || '([ ,")]|$)') as waited_for,
           pg_catalog.pg_wal_lsn_diff(here.lsn, s.restart_lsn) > shardman.bytes_setting('wal_keep_limit', '10GB') as over_limit
      from pg_catalog.pg_replication_slots s
      join shardman.our_objects o on o.kind = 'replication slot' and o.name = s.slot_name
      left join pg_catalog.pg_stat_replication r on r.pid = s.active_pid
     cross join lateral (
           select case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                       else pg_catalog.pg_current_wal_lsn() end as lsn) as here;
comment on view shardman.status_slots is
    'this node: our replication slots, how far their receivers are behind, and the WAL that is kept for them; '
    'waited_for: commits on this server wait for the receiver; sync_state: as in pg_stat_replication';

create or replace view shardman.status_channels as
    with wanted as (
        select r.owner as to_node, count(*) as partitions, bool_or(t.sync and n.away_until is null) as sync
          from shardman.local l
          join shardman.partitions p on p.owner = l.node_id and p.prv is null
          join shardman.partitions r on r.part_name = p.part_name and r.prv is not null and r.stale_since is null
          join shardman.tables t on t.relation = p.relation
          join shardman.nodes n on n.id = r.owner
         group by r.owner
    ), made as (
        select s.* from shardman.status_slots s join shardman.local l using (cluster) where s.purpose = 'channel'
    )
    select l.node_id as from_node, coalesce(w.to_node, m.to_node) as to_node, coalesce(w.partitions, 0) as partitions,
           coalesce(w.sync, false) as synchronous, coalesce(m.waited_for, false) as waited_for, m.sync_state,
           coalesce(m.state = 'streaming', false) as streaming, m.lag_bytes, m.lag, m.retained_bytes, m.slot_name
      from wanted w full join made m on m.to_node = w.to_node
     cross join shardman.local l;
comment on view shardman.status_channels is
    'this node: the channels to the nodes that have replicas of its primaries; partitions: how many follow over it; '
    'synchronous: by the metadata; waited_for and sync_state: what the server really does; lag: as last confirmed, null '
    'when the channel is down';

create or replace view shardman.status_waiting as
    select count(*) as commits, max(clock_timestamp() - a.query_start) as longest,
           (select coalesce(array_agg(s.to_node order by s.to_node), '{}') from shardman.status_slots s
             where s.waited_for and (s.state is distinct from 'streaming' or s.lag_bytes > 0)) as for_nodes
      from pg_catalog.pg_stat_activity a
     where a.wait_event = 'SyncRep' and a.backend_type = 'client backend';
comment on view shardman.status_waiting is
    'this node: commits that wait for replicas; longest: since the start of the statement; for_nodes: those that have not '
    'confirmed all that is written';

create or replace view shardman.status_failovers as
    select c.id as cmd_id, c.cmd_type,
           case c.cmd_type when 'failover' then shardman.option(c.id, 'node_id', 1) else shardman.option(c.id, 'src', 1) end::int as node,
           case when c.cmd_type = 'suspend_replicas' then shardman.option(c.id, 'dest', 2)::int end as to_node,
           coalesce(c.reason, 'submitted by ' || c.submitted_by) as reason,
           c.submitted_at as detected_at, c.ended_at - c.submitted_at as duration, c.status, c.error, c.result
      from shardman.cmd_log c where c.cmd_type in ('failover', 'suspend_replicas');
comment on view shardman.status_failovers is
    'failovers, and replicas that were given up because their primaries could not reach them; node: the dead one, or the '
    'primaries''; duration: from the decision to the end, what waits for the dead node itself left out';

create or replace view shardman.status_subscriptions as
    select s.subname::text as subscription, o.cluster, o.cmd_id, s.subenabled as enabled,
           w.pid is not null as running, w.received_lsn, w.latest_end_lsn, w.last_msg_receipt_time,
           e.apply_error_count as errors
      from pg_catalog.pg_subscription s
      join shardman.our_objects o on o.kind = 'subscription' and o.name = s.subname
      left join pg_catalog.pg_stat_subscription w on w.subid = s.oid and w.relid is null
      left join pg_catalog.pg_stat_subscription_stats e on e.subid = s.oid;
comment on view shardman.status_subscriptions is 'this node: our subscriptions, whether they run, and how often they failed';

create or replace view shardman.status_comparisons as
    select s.relation, s.part_name, s.node, c.compared_at, c.rows, c.bytes, c.took, c.differing, c.last_difference
      from shardman.status_copies s
      left join shardman.comparisons c on c.part_name = s.part_name and c.node = s.node
     where s.role = 'replica';
comment on view shardman.status_comparisons is
    'lord only: when each replica was last compared with its primary in the background (null: not yet since it was made), and in how many '
    'rows they differed at least';
