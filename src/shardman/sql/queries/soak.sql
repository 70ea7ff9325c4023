-- What the soak test looks for and does. Each query of a damage gives statements, of which one is executed, and perhaps
-- the partition that is meant, or what undoes it.

-- name: missing
select count(*) from shardman.partitions p
 where p.prv is null
   and %s > (select count(*) from shardman.partitions r
              where r.part_name = p.part_name and r.prv is not null and r.stale_since is null)

-- name: compared
-- The last look of the scrub at the replicas of a partition came later, and found nothing.
select count(*) > 0 and bool_and(compared_at > %s and differing = 0)
  from shardman.status_comparisons where part_name = %s

-- name: journal
select concat_ws(' ', s.cmd_id, l.cmd_type, l.status, s.phase, s.n, to_char(s.started_at, 'HH24:MI:SS.MS'),
                 extract(epoch from s.ended_at - s.started_at)::numeric(8, 3), s.state, s.title, s.error)
  from shardman.cmd_steps s join shardman.cmd_log l on l.id = s.cmd_id order by s.started_at

-- name: process_walsender
select pid from pg_stat_replication where application_name ~ '^shardman_[a-z0-9]{6}_[0-9]+_[0-9]+$'

-- name: process_apply_worker
select pid from pg_stat_subscription where subname ~ '^shardman_[a-z0-9]{6}_[0-9]+_[0-9]+$' and pid is not null

-- name: process_checkpointer
select pid from pg_stat_activity where backend_type = 'checkpointer'

-- name: process_WAL_writer
select pid from pg_stat_activity where backend_type = 'walwriter'

-- name: process_launcher
select pid from pg_stat_activity where backend_type = 'logical replication launcher'

-- name: process_receiver_of_metadata
select pid from pg_stat_subscription where subname ~ '^shardman_meta_' and pid is not null

-- name: process_session_of_the_shardlord
select pid from pg_stat_activity where application_name ~ '^shardman lord'

-- name: process_session_of_another_node
select pid from pg_stat_activity where application_name ~ '^from_[0-9]+$'

-- name: process_any
select pid from pg_stat_activity where pid <> pg_backend_pid()

-- name: channel_publication_dropped
select format('drop publication %I', pubname) from pg_publication
 where pubname ~ '^shardman_[a-z0-9]{6}_[0-9]+_[0-9]+$'

-- name: channel_inserts_only
select format('alter publication %I set (publish = ''insert'')', pubname) from pg_publication
 where pubname ~ '^shardman_[a-z0-9]{6}_[0-9]+_[0-9]+$'

-- name: channel_table_taken_out
select format('alter publication %I drop table %I.%I', pubname, schemaname, tablename) from pg_publication_tables
 where pubname ~ '^shardman_[a-z0-9]{6}_[0-9]+_[0-9]+$' and tablename ~ '_data$'

-- name: channel_filter
select format('alter publication %I set table %I.%I where (id > 9)', pubname, schemaname, tablename)
  from pg_publication_tables where pubname ~ '^shardman_[a-z0-9]{6}_[0-9]+_[0-9]+$' and tablename ~ '_data$'

-- name: channel_subscription_disabled
select format('alter subscription %I disable', subname) from pg_subscription
 where subname ~ '^shardman_[a-z0-9]{6}_[0-9]+_[0-9]+$'

-- name: channel_other_publication
select format('alter subscription %I set publication nothing with (refresh = false)', subname) from pg_subscription
 where subname ~ '^shardman_[a-z0-9]{6}_[0-9]+_[0-9]+$'

-- name: channel_subscription_dropped
select format('drop subscription %I', subname) from pg_subscription
 where subname ~ '^shardman_[a-z0-9]{6}_[0-9]+_[0-9]+$'

-- name: channel_slot_dropped
select format('do $do$ begin for i in 1..100 loop begin
                   perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %1$L;
                   perform pg_drop_replication_slot(%1$L);
                   exit;
               exception when object_in_use then perform pg_sleep(0.02); end; end loop; end $do$', slot_name)
  from pg_replication_slots where slot_name ~ '^shardman_[a-z0-9]{6}_[0-9]+_[0-9]+$'

-- name: replica_dropped
select format('drop table %s', data::regclass) from shardman.channel_copies() where not here and data is not null

-- name: replica_writable
select format('alter table %s disable trigger shardman_read_only', data::regclass)
  from shardman.channel_copies() where not here and data is not null

-- name: replica_refuses
select format('alter table %s add constraint refuses check (id < 0) not valid', data::regclass),
       format('alter table if exists %s drop constraint if exists refuses', data::regclass)
  from shardman.channel_copies() where not here and data is not null

-- name: rows_deleted
select format('delete from %s where id %% 7 = 3', data::regclass), part_name
  from shardman.channel_copies() where not here and data is not null

-- name: rows_truncated
select format('truncate %s', data::regclass), part_name
  from shardman.channel_copies() where not here and data is not null

-- name: rows_changed
select format('update %s set touched = touched + 1 where id %% 7 = 3', data::regclass), part_name
  from shardman.channel_copies() where not here and data is not null and part_name like 'accounts%'

-- name: primary_dropped
select format('drop table %s', data::regclass), part_name
  from shardman.channel_copies() where here and data is not null

-- name: primary_detached
select format('alter table %s detach partition %s', i.inhparent::regclass, c.data::regclass), c.part_name
  from shardman.channel_copies() c join pg_inherits i on i.inhrelid = c.data where c.here

-- name: metadata_subscription_dropped
select format('drop subscription %I', subname) from pg_subscription where subname ~ '^shardman_meta_'

-- name: metadata_subscription_disabled
select format('alter subscription %I disable', subname) from pg_subscription where subname ~ '^shardman_meta_'

-- name: lords_publication_dropped
select format('drop publication %I', pubname) from pg_publication where pubname ~ '^shardman_meta_'

-- name: lords_publication_narrowed
select format('alter publication %I drop table shardman.settings', pubname) from pg_publication
 where pubname ~ '^shardman_meta_'

-- name: lords_slot_dropped
select format('do $do$ begin for i in 1..100 loop begin
                   perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %1$L;
                   perform pg_drop_replication_slot(%1$L);
                   exit;
               exception when object_in_use then perform pg_sleep(0.02); end; end loop; end $do$', slot_name)
  from pg_replication_slots where slot_name ~ '^shardman_meta_'

-- name: route_server_dropped
select format('drop server %I cascade', srvname) from pg_foreign_server where srvname ~ '^shardman_node_[0-9]+$'

-- name: route_mapping_dropped
select format('drop user mapping for current_user server %I', srvname) from pg_user_mappings
 where usename = current_user and srvname ~ '^shardman_node_[0-9]+$'

-- name: route_leads_nowhere
select format('alter server %I options (set port ''1'')', srvname) from pg_foreign_server
 where srvname ~ '^shardman_node_[0-9]+$' and srvoptions::text ~ 'port='

-- name: route_table_dropped
select format('drop foreign table %s', ftrelid::regclass) from pg_foreign_table
