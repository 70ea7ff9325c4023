-- name: begin_command
update shardman.cmd_log
   set status = 'in progress', started_at = coalesce(started_at, clock_timestamp()), attempt = attempt + 1,
       switched = false, step_no = null, steps_total = null, step_name = null,
       bytes_done = null, bytes_total = null, rows_done = null, waits_for = null
 where id = %(id)s and status in ('waiting', 'in progress')
   and exists (select from shardman.lease where epoch = %(epoch)s)
returning attempt

-- name: ours
select from shardman.lease where epoch = %(epoch)s

-- name: begin_child
with child as (
    insert into shardman.cmd_log (cmd_type, parent, submitted_by)
    select %(cmd_type)s, %(parent)s, submitted_by from shardman.cmd_log
     where id = %(parent)s and exists (select from shardman.lease where epoch = %(epoch)s)
    returning id
), opts as (
    insert into shardman.cmd_opts (cmd_id, opt)
    select child.id, o.opt from child, unnest(%(opts)s::text[]) with ordinality as o (opt, n) order by o.n
)
select id from child

-- name: plan_steps
insert into shardman.cmd_steps (cmd_id, attempt, n, phase, kind, args, title)
select %(id)s, %(attempt)s, s.n, s.phase, s.kind, s.args, s.title
  from jsonb_to_recordset(%(steps)s) as s (n int, phase text, kind text, args jsonb, title text)
 where exists (select from shardman.lease where epoch = %(epoch)s)

-- name: start_step
with step as (
    update shardman.cmd_steps set state = 'started', started_at = clock_timestamp(), error = null
     where cmd_id = %(id)s and attempt = %(attempt)s and n = %(n)s
       and set_config('synchronous_commit', %(commit)s, true) is not null
       and exists (select from shardman.lease where epoch = %(epoch)s)
    returning title
)
update shardman.cmd_log
   set step_no = %(n)s, steps_total = %(total)s, step_name = step.title,
       bytes_done = null, bytes_total = null, rows_done = null, waits_for = null
  from step where id = %(id)s

-- name: end_step
update shardman.cmd_steps set state = %(state)s, ended_at = clock_timestamp(), error = %(error)s
 where cmd_id = %(id)s and attempt = %(attempt)s and n = %(n)s
   and set_config('synchronous_commit', 'off', true) is not null
   and exists (select from shardman.lease where epoch = %(epoch)s)

-- name: switch
update shardman.cmd_log set switched = true
 where id = %(id)s and not cancel_requested and status = 'in progress'
   and exists (select from shardman.lease where epoch = %(epoch)s)

-- name: switch_steps
update shardman.cmd_steps set state = 'done', started_at = coalesce(started_at, clock_timestamp()), ended_at = clock_timestamp()
 where cmd_id = %(id)s and attempt = %(attempt)s and phase = 'switch'

-- name: end_command
update shardman.cmd_log
   set status = %(status)s::shardman.cmd_status, error = %(error)s, result = %(result)s,
       ended_at = case when %(status)s = 'waiting' then null else clock_timestamp() end,
       started_at = case when %(status)s = 'waiting' then null else coalesce(started_at, clock_timestamp()) end,
       waits_for = null
 where id = %(id)s and status in ('waiting', 'in progress')
   and exists (select from shardman.lease where epoch = %(epoch)s)
returning id

-- name: add_result
update shardman.cmd_log set result = concat_ws(' ', result, %(sentence)s::text) where id = %(id)s

-- name: forget_secret
delete from shardman.cmd_secrets s
 where cmd_id = %(id)s
   and not exists (select from shardman.cmd_steps t
                    where t.cmd_id = s.cmd_id and t.phase = 'prepare' and t.state in ('started', 'done')
                      and not (select switched from shardman.cmd_log where id = s.cmd_id))

-- name: progress
update shardman.cmd_log
   set bytes_done = coalesce(%(bytes_done)s, bytes_done), bytes_total = coalesce(%(bytes_total)s, bytes_total),
       rows_done = coalesce(%(rows_done)s, rows_done)
 where id = %(id)s

-- name: waits_for
update shardman.cmd_log set waits_for = %(whom)s where id = %(id)s

-- name: waiting
select l.id, l.cmd_type, l.cancel_requested,
       (select coalesce(array_agg(o.opt order by o.id), '{}') from shardman.cmd_opts o where o.cmd_id = l.id) as opts
  from shardman.cmd_log l
 where l.status = 'waiting' and l.parent is null
 order by l.id

-- name: cancel_requests
select id from shardman.cmd_log where cancel_requested and status in ('waiting', 'in progress')

-- name: unfinished
select l.id, l.cmd_type, l.attempt, l.switched, l.parent, l.cancel_requested, l.status::text as status,
       (select coalesce(array_agg(o.opt order by o.id), '{}') from shardman.cmd_opts o where o.cmd_id = l.id) as opts
  from shardman.cmd_log l
 -- Nobody but its parent begins a child.
 where l.status = 'in progress' or l.status = 'waiting' and l.parent is not null
 order by l.parent nulls last, l.id

-- name: steps
select n, phase, kind, args, title, state from shardman.cmd_steps
 where cmd_id = %(id)s and attempt = %(attempt)s order by n

-- name: leftovers
select l.id, l.attempt, l.switched
  from shardman.cmd_log l
 where l.status not in ('waiting', 'in progress')
   and exists (select from shardman.cmd_steps s
                where s.cmd_id = l.id
                  and case when l.switched or l.status in ('success', 'done')
                           then s.phase = 'finish' and s.state in ('planned', 'started') and s.attempt = l.attempt
                           else s.phase = 'prepare' and s.state in ('started', 'done') end)
 order by l.id

-- name: supersede
-- These steps make things that bear no command's number. Once a later command has made one again it is that command's.
update shardman.cmd_steps s set state = 'undone', ended_at = clock_timestamp(), error = 'left to a later command'
  from shardman.cmd_log l
 where s.cmd_id = %(id)s and l.id = s.cmd_id and not l.switched
   and s.phase = 'prepare' and s.state in ('started', 'done')
   and s.kind in ('data_table', 'read_only', 'register', 'replica_identity', 'cut_channel')
   and exists (select from shardman.lease where epoch = %(epoch)s)
   and exists (select from shardman.cmd_steps t
                where t.cmd_id > s.cmd_id and t.kind = s.kind and t.phase = 'prepare' and t.state in ('started', 'done')
                  and t.args - 'former' = s.args - 'former')

-- name: undo_steps
-- What has switched has happened, and is never undone.
select s.attempt, s.n, s.kind, s.args, s.title
  from shardman.cmd_steps s join shardman.cmd_log l on l.id = s.cmd_id and not l.switched
 where s.cmd_id = %(id)s and s.phase = 'prepare' and s.state in ('started', 'done')
 order by s.attempt desc, s.n desc

-- name: finish_steps
select attempt, n, kind, args, title from shardman.cmd_steps
 where cmd_id = %(id)s and attempt = %(attempt)s and phase = 'finish' and state in ('planned', 'started')
 order by n

-- name: position
select pg_current_wal_insert_lsn() as lsn

-- name: emit
select shardman.emit()

-- name: copied
-- Null: there is nobody to wait for. A worker on the lord's own server would be lost together with it.
select case when shardman.setting('lord_sync', 'on') <> 'off' then bool_or(s.confirmed_flush_lsn >= %(lsn)s::pg_lsn) end as copied
  from shardman.nodes n join shardman.local l on true
  join pg_replication_slots s on s.slot_name = format('shardman_meta_%%s_%%s', l.cluster, n.id)
 where s.database = current_database() and s.active
   and n.id <> all (%(silent)s::int[])
   and n.system_id is distinct from (select system_identifier::text from pg_control_system())
