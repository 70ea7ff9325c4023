-- What `shardman doctor` asks each server. It may have nothing of ours yet, so nothing of ours is named without a look.

-- name: settings
-- As a session of the application's begins with them, and what a change of each takes.
select name, reset_val, context, coalesce(unit, '') from pg_catalog.pg_settings

-- name: server
select jsonb_build_object(
    'version', current_setting('server_version_num')::int,
    'system_id', (select system_identifier::text from pg_catalog.pg_control_system()),
    'started', pg_catalog.pg_postmaster_start_time()::text,
    'database', current_database(),
    'role', current_user,
    'superuser', (select rolsuper from pg_catalog.pg_roles where rolname = current_user),
    'ssl', coalesce((select s.ssl from pg_catalog.pg_stat_ssl s where s.pid = pg_catalog.pg_backend_pid()), false),
    'extensions', (select coalesce(jsonb_object_agg(extname, extversion), '{}') from pg_catalog.pg_extension),
    'collations', (select coalesce(jsonb_agg(format('%I.%I', n.nspname, c.collname)), '[]')
                     from pg_catalog.pg_collation c join pg_catalog.pg_namespace n on n.oid = c.collnamespace
                    where c.collversion is distinct from pg_catalog.pg_collation_actual_version(c.oid) and c.collversion is not null),
    'roles', (select coalesce(jsonb_agg(rolname), '[]') from pg_catalog.pg_roles where rolname !~ '^(pg_|shardman_)'),
    'bytes', pg_catalog.pg_database_size(current_database()),
    'owner', (select pg_catalog.pg_get_userbyid(n.nspowner) = current_user from pg_catalog.pg_namespace n where n.nspname = 'shardman'),
    'one_phase', (select coalesce(jsonb_agg(slot_name order by slot_name), '[]') from pg_catalog.pg_replication_slots
                   where slot_name ~ '^shardman_[^_]+_[0-9]+_[0-9]+$' and database = current_database() and not two_phase),
    'others', (select count(*) from pg_catalog.pg_prepared_xacts where prepared < clock_timestamp() - interval '5 minutes')) as facts

-- name: member
select l.cluster, l.node_id, (select coalesce(max(t.partitions_count), 0) from shardman.tables t) from shardman.local l where l.cluster is not null

-- name: clock
select extract(epoch from clock_timestamp())::float8

-- name: me
select pg_backend_pid(), backend_start::text from pg_catalog.pg_stat_activity where pid = pg_backend_pid()

-- name: through
-- By postgres_fdw: whether the session that asks is one of the server's that the address leads to.
select exists (select from pg_temp.shardman_doctor where pid = %s and backend_start = %s::timestamptz)
