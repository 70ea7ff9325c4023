-- name: try_lock
select pg_try_advisory_lock(hashtextextended('shardman lord', 0)) as got

-- name: holder
select epoch, holder, pid, clock_timestamp() - renewed_at > %(timeout)s * interval '1 second' as expired from shardman.lease

-- name: end_holder
select pg_terminate_backend(pid) from pg_stat_activity
 where pid = %(pid)s and application_name like 'shardman %%'

-- name: take
update shardman.lease set epoch = epoch + 1, holder = %(holder)s, pid = pg_backend_pid(), renewed_at = clock_timestamp(),
       suspicion = null
returning epoch

-- name: renew
update shardman.lease set renewed_at = clock_timestamp() where epoch = %(epoch)s
