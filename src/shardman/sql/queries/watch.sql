-- What the shardlord asks while nothing happens. Each of these runs as long as the cluster does: they are few and cheap.

-- name: glance
-- The version of the metadata: a row that was added or changed has a newer xmin than all before, one that is gone is not
-- counted. And whether there is a command to begin or to cancel.
select concat_ws(' ', (select concat_ws('/', count(*), sum(xmin::text::bigint)) from shardman.nodes),
                      (select concat_ws('/', count(*), sum(xmin::text::bigint)) from shardman.tables),
                      (select concat_ws('/', count(*), sum(xmin::text::bigint)) from shardman.partitions),
                      (select concat_ws('/', count(*), sum(xmin::text::bigint)) from shardman.shared_copies),
                      (select concat_ws('/', count(*), sum(xmin::text::bigint)) from shardman.settings)),
       exists (select from shardman.cmd_log l
                where l.status in ('waiting', 'in progress')
                  and (l.status = 'waiting' and l.parent is null
                       or exists (select from shardman.cancel_requests r where r.cmd_id = l.id)))

-- name: settings
select name, value from shardman.settings

-- name: metadata_copies
-- Who streams the metadata, and what the server's commits wait for. A worker on the lord's own server would be lost
-- together with it. A slot that is being made is in use and streams nothing: it waits for commits to end, and they for it.
select coalesce(array_agg(s.slot_name::text order by s.slot_name) filter (where r.state = 'streaming'), '{}'),
       current_setting('synchronous_standby_names')
  from shardman.nodes n join shardman.local l on true
  join pg_replication_slots s on s.slot_name = format('shardman_meta_%%s_%%s', l.cluster, n.id)
  left join pg_stat_replication r on r.pid = s.active_pid
 where n.worker_status = 'active' and n.id <> all (%s::int[])
   and n.system_id is distinct from (select system_identifier::text from pg_control_system())

-- name: wanted_standby_names
select n.id, shardman.synchronous_channels(n.id) from shardman.nodes n where n.worker_status = 'active'

-- name: strays
-- The workers that do not stream the metadata: they are down, or a former lord's, or have lost their subscription or slot.
select n.id from shardman.nodes n join shardman.local l on true
 where n.worker_status = 'active' and not n.lord
   and not exists (select from pg_replication_slots s
                    where s.slot_name = format('shardman_meta_%s_%s', l.cluster, n.id)
                      and s.database = current_database() and s.active)
   and not exists (select from shardman.cmd_log c
                    where c.cmd_type in ('add_node', 'rm_node') and c.status = 'in progress')
 order by 1

-- name: uncleared
-- Nodes that take no copy yet (`steps.replication.check_cleared`).
select id from shardman.nodes n where exists (select from shardman.returns_of(n.id))

-- name: levelling
-- The tables that are being brought to their levels.
select shardman.option(l.id, 'relation', 1) from shardman.cmd_log l
 where l.status in ('waiting', 'in progress') and l.cmd_type = 'set_replevel'

-- name: sharing
select exists (select from shardman.cmd_log
                where status in ('waiting', 'in progress')
                  and cmd_type in ('add_node', 'rm_node', 'create_shared_table', 'unshare_table', 'drop_table'))

-- name: unknowing
-- Nodes that were removed and do not know it.
select c.node
  from shardman.node_cleanings c join shardman.cmd_steps s using (cmd_id, attempt, n)
  join shardman.cmd_log l on l.id = c.cmd_id and l.attempt = c.attempt
 where s.state = 'started' and l.status = 'success'

-- name: metadata_slot
-- Whether a slot can still give a worker all that it has not had.
select exists (select from pg_replication_slots
                where slot_name = %s and database = current_database() and plugin = 'pgoutput' and wal_status is distinct from 'lost')

-- name: metadata_subscription
-- On a worker: whether its subscription takes all from the slot and the publication that it must, and its connection string where this role may see it.
select s.subslotname is not distinct from s.subname and s.subpublications = array[%s]::text[]
       and not exists (select from unnest(%s::text[]) as t
                        where not exists (select from pg_subscription_rel r
                                           where r.srsubid = s.oid and r.srrelid = to_regclass('shardman.' || quote_ident(t)))),
       shardman.subscription_way(s.oid)
  from pg_subscription s join pg_database d on d.oid = s.subdbid and d.datname = current_database()
 where s.subname = %s

-- name: metadata_publication
-- Differs once anybody has changed the publication, or made it anew: a stream has then left changes out.
select concat_ws(' ', p.oid, p.xmin, (select string_agg(concat_ws(' ', r.oid, r.xmin), ' ' order by r.oid)
                                        from pg_publication_rel r where r.prpubid = p.oid))
  from pg_publication p where p.pubname = %s

-- name: receiver
-- Who receives from a slot, and whether it has confirmed something since a moment: the receiver of a broken connection
-- has not.
select concat_ws(':', coalesce(r.client_addr::text, 'this machine'), nullif(r.client_port, -1)),
       r.reply_time > coalesce(%s::timestamptz, 'infinity') + interval '2 s', clock_timestamp()
  from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid
 where s.slot_name = %s

-- name: is_served
-- On a worker: whether its subscription to the metadata runs.
select exists (select from pg_stat_subscription where subname = %s and pid is not null)

-- name: members_change
select exists (select from shardman.cmd_log where cmd_type in ('add_node', 'rm_node') and status = 'in progress')

-- name: can_write
-- Half a megabyte of a temporary file, and a flush of the WAL: a node without room, or with a disk that hangs, shows it.
set local work_mem = '64kB'; set local temp_tablespaces = '';
with rows as materialized (select repeat('x', 8192) as filler from generate_series(1, 64))
select count(*), shardman.emit() from rows

-- name: hears
-- On another node: whether it has heard a publisher within the last seconds.
select exists (select from pg_stat_subscription where subname = %s and pid is not null
                  and last_msg_receipt_time > clock_timestamp() - make_interval(secs => %s))

-- name: channels
-- One look at a node's channels; see the function.
select beat, wal_end, confirmed, arrived, version, faults, shardman.apply_failures(), shardman.takes_version()
  from shardman.watch_channels(%s)

-- name: channel_faults
select jsonb_agg(to_jsonb(f)) from shardman.channel_faults() f

-- name: channel_takes
select parts, version, needs, rules, locked from shardman.channel_takes(%s, %s)

-- name: applied
select shardman.applied_of(%s)::text

-- name: pending_parts
select shardman.pending_parts(%s, %s::pg_lsn)

-- name: channels_cut
select exists (select from shardman.cmd_log
                where status = 'in progress'
                  and (cmd_type in ('failover', 'rm_node', 'suspend_replicas') or cmd_type = 'set_partitions_count' and switched))
       -- Or one has decided on new ones, and nodes have them prepared only.
       or exists (select from shardman.cmd_log l join shardman.cmd_steps s on s.cmd_id = l.id and s.attempt = l.attempt
                   where l.status = 'in progress' and l.switched and s.kind = 'commit_prepared' and s.state in ('planned', 'started'))

-- name: in_one_phase
-- Of these channels of this node those that could have two phases, and are not behind.
select s.slot_name::text from pg_replication_slots s
 where s.slot_name = any (%s) and s.database = current_database() and not s.two_phase and s.active and shardman.has_room()
   and pg_current_wal_insert_lsn() - s.confirmed_flush_lsn < 1048576

-- name: commands_at_work
select exists (select from shardman.cmd_log where status = 'in progress')

-- name: send_signs
select sent, wait, ticks, said from shardman.send_signs(%s)

-- name: apply_signs
select extract(epoch from heard)::float8, received, wait, ticks, said from shardman.apply_signs(%s)

-- name: over_limit
-- Slots that keep too much WAL, and the node whose replicas could be given up for one.
select s.slot_name, pg_size_pretty(s.retained_bytes),
       case when s.purpose = 'channel' and not s.active and shardman.channel_needed(shardman.my_id(), s.to_node)
            then s.to_node end
  from shardman.status_slots s where s.over_limit and s.purpose <> 'command'

-- name: wal_here
-- Of a node whose schema may be an older one.
select c.timeline_id, pg_current_wal_flush_lsn()::text from pg_control_checkpoint() c

-- name: visit
-- Who a node is, which version of our schema it has, and the transactions that are prepared there for long. Where its WAL
-- is, and whether it receives the metadata.
select l.node_id, obj_description('shardman'::regnamespace, 'pg_namespace'),
       array(select x.gid from pg_prepared_xacts x
              where x.database = current_database() and starts_with(x.gid, %s)
                and x.prepared < clock_timestamp() - make_interval(secs => %s)),
       c.timeline_id, pg_current_wal_flush_lsn()::text,
       l.lord or exists (select from pg_stat_subscription s
                          where s.subname = format('shardman_meta_%%s_%%s', l.cluster, l.node_id) and s.pid is not null)
  from shardman.local l, pg_control_checkpoint() c

-- name: visit_of_ours
-- What only our schema of this version can say: where the timeline of a node begins, and the changes counted there.
select shardman.branched_at(), shardman.changes_counted()

-- name: scrub_settings
select shardman.bytes_setting('scrub_rate', '2MB')

-- name: compared
select part_name, node, extract(epoch from clock_timestamp() - compared_at)::float from shardman.comparisons

-- name: copy_bytes
select pg_catalog.pg_table_size(shardman.find_relation(shardman.data_table(%s)))

-- name: shared_compared
select relation, 0, extract(epoch from clock_timestamp() - min(compared_at))::float from shardman.shared_comparisons group by 1

-- name: shared_bytes
select pg_catalog.pg_table_size(shardman.find_relation(%s))

-- name: note_shared_comparison
select shardman.note_shared_comparison(%s, %s, %s, %s, %s, %s, %s)

-- name: is_waited_for
select shardman.is_waited_for(%s)

-- name: note_comparison
select shardman.note_comparison(%s, %s, %s, %s, make_interval(secs => %s), %s)

-- name: note_given_up
select shardman.note_given_up(%s, %s, %s)

-- name: maintenance
select id, away_until::text, away_until <= clock_timestamp() from shardman.nodes where worker_status = 'active' and away_until is not null
