-- name: holder
-- Its session ends the moment its process dies. When it began is not shown to everybody (PostgreSQL: pg_read_all_stats); then
-- its number alone must do, and in doubt it is alive.
select l.epoch, l.holder, l.pid, a.pid is not null as alive,
       clock_timestamp() - l.renewed_at > %(timeout)s * interval '1 second' as expired
  from shardman.lease l
  left join pg_stat_activity a
    on a.pid = l.pid
   and (a.backend_start = l.backend_start or a.backend_start is null
        or l.backend_start is null and a.application_name like 'shardman %%')

-- name: end_holder
select pg_terminate_backend(%(pid)s)

-- name: take
-- Of several that see at the same instant that nobody acts, the first has it.
update shardman.lease
   set epoch = epoch + 1, holder = %(holder)s, pid = a.pid, backend_start = a.backend_start, renewed_at = clock_timestamp(),
       suspicion = null
  from pg_stat_activity a
 where epoch = %(seen)s and a.pid = pg_backend_pid()
returning epoch

-- name: renew
-- A sign of life that a crash of the server takes along is missed by nobody: it need not wait for the disk.
update shardman.lease set renewed_at = clock_timestamp()
 where epoch = %(epoch)s and set_config('synchronous_commit', 'off', true) is not null
