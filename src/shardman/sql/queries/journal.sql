-- name: begin_command
update shardman.cmd_log
   set status = 'in progress', started_at = coalesce(started_at, clock_timestamp()), attempt = attempt + 1,
       switched = false, step_no = null, steps_total = null, step_name = null,
       bytes_done = null, bytes_total = null, rows_done = null, waits_for = null, result_data = null
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
    insert into shardman.cmd_opts (cmd_id, name, opt)
    select child.id, o.key, o.value from child, json_each_text(%(options)s::json) with ordinality as o (key, value, n) order by o.n
)
select id from child

-- name: plan_steps
with ours as (
    select from shardman.lease where epoch = %(epoch)s
), node_returns as (
    insert into shardman.node_returns (cmd_id, attempt, n, node, set_aside, subscribers)
    select %(id)s, %(attempt)s, s.n, s.node, s.set_aside, s.subscribers
      from ours, jsonb_to_recordset(%(node_returns)s) as s (n int, node int, set_aside text[], subscribers int[])
), node_cleanings as (
    insert into shardman.node_cleanings (cmd_id, attempt, n, node)
    select %(id)s, %(attempt)s, s.n, s.node
      from ours, jsonb_to_recordset(%(node_cleanings)s) as s (n int, node int)
), standby_intents as (
    insert into shardman.standby_intents (cmd_id, attempt, n, node, standby)
    select %(id)s, %(attempt)s, s.n, s.node, s.standby
      from ours, jsonb_to_recordset(%(standby_intents)s) as s (n int, node int, standby int)
), channel_changes as (
    insert into shardman.channel_changes (cmd_id, attempt, n, src, dest, change)
    select %(id)s, %(attempt)s, s.n, s.src, s.dest, s.change
      from ours, jsonb_to_recordset(%(channel_changes)s) as s (n int, src int, dest int, change text)
)
insert into shardman.cmd_steps (cmd_id, attempt, n, phase, kind, args, title, makes)
select %(id)s, %(attempt)s, s.n, s.phase, s.kind, s.args, s.title, s.makes
  from ours,
       jsonb_to_recordset(%(cmd_steps)s) as s (n int, phase text, kind text, args jsonb, title text, makes text)

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
-- What was measured until now is kept: whoever finishes the command did not see it.
update shardman.cmd_log set switched = true, result_data = %(data)s::jsonb
 where id = %(id)s and status = 'in progress'
   and not exists (select from shardman.cancel_requests r where r.cmd_id = %(id)s)
   and exists (select from shardman.lease where epoch = %(epoch)s)

-- name: switch_steps
update shardman.cmd_steps set state = 'done', started_at = coalesce(started_at, clock_timestamp()), ended_at = clock_timestamp()
 where cmd_id = %(id)s and attempt = %(attempt)s and phase = 'switch'

-- name: end_command
-- A failover is no success while a partition cannot be read: nobody could take over, or nobody has yet.
update shardman.cmd_log l
   set status = case when %(status)s = 'success' and cmd_type = 'failover'
                      and (coalesce(result_data, '{}') || coalesce(%(data)s::jsonb, '{}') ? 'unreachable'
                           or exists (select from shardman.cmd_steps s
                                       where s.cmd_id = l.id and s.attempt = l.attempt and s.kind = 'promote' and s.state <> 'done'))
                     then 'done' else %(status)s::shardman.cmd_status end, error = %(error)s,
       result = case when %(status)s = 'canceled' then coalesce(shardman.canceled_by(id), %(result)s) else %(result)s end,
       error_code = %(code)s, result_data = case when result_data is null then %(data)s::jsonb else result_data || coalesce(%(data)s::jsonb, '{}') end,
       ended_at = case when %(status)s = 'waiting' then null else clock_timestamp() end,
       started_at = case when %(status)s = 'waiting' then null else coalesce(started_at, clock_timestamp()) end,
       waits_for = null
 where id = %(id)s and status in ('waiting', 'in progress')
   and exists (select from shardman.lease where epoch = %(epoch)s)
returning id

-- name: add_result
update shardman.cmd_log set result = concat_ws(' ', result, %(sentence)s::text) where id = %(id)s

-- name: add_set_aside
update shardman.cmd_log
   set result_data = coalesce(result_data, '{}')
                     || jsonb_build_object('set_aside', coalesce(result_data -> 'set_aside', '[]') || %(tables)s::jsonb)
 where id = %(id)s

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
select l.id, l.cmd_type, shardman.canceled_by(l.id) as canceled_by,
       (select coalesce(json_agg(json_build_array(o.name, o.opt) order by o.id), '[]') from shardman.cmd_opts o
         where o.cmd_id = l.id) as options
  from shardman.cmd_log l
 where l.status = 'waiting' and l.parent is null
 order by l.id

-- name: cancel_requests
select l.id from shardman.cmd_log l
 where l.status in ('waiting', 'in progress') and exists (select from shardman.cancel_requests r where r.cmd_id = l.id)

-- name: unfinished
select l.id, l.cmd_type, l.attempt, l.switched, l.parent, shardman.canceled_by(l.id) as canceled_by, l.status::text as status,
       (select coalesce(json_agg(json_build_array(o.name, o.opt) order by o.id), '[]') from shardman.cmd_opts o
         where o.cmd_id = l.id) as options
  from shardman.cmd_log l
 -- Nobody but its parent begins a child.
 where l.status = 'in progress' or l.status = 'waiting' and l.parent is not null
 order by l.parent nulls last, l.id

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
-- What bears no command's number: once a later command has made it again it is that command's.
update shardman.cmd_steps s set state = 'undone', ended_at = clock_timestamp(), error = 'left to a later command'
  from shardman.cmd_log l
 where s.cmd_id = %(id)s and l.id = s.cmd_id and not l.switched
   and s.phase = 'prepare' and s.state in ('started', 'done')
   and exists (select from shardman.lease where epoch = %(epoch)s)
   and exists (select from shardman.cmd_steps t
                where t.cmd_id > s.cmd_id and t.makes = s.makes and t.phase = 'prepare' and t.state in ('started', 'done'))

-- name: undo_steps
-- What has switched has happened, and is never undone.
select s.attempt, s.n, s.kind, s.args, s.title
  from shardman.cmd_steps s join shardman.cmd_log l on l.id = s.cmd_id and not l.switched
 where s.cmd_id = %(id)s and s.phase = 'prepare' and s.state in ('started', 'done')
 order by s.attempt desc, s.n desc

-- name: has_switched
-- On any node: what is seen there was decided.
select from shardman.cmd_log where id = %(id)s and attempt = %(attempt)s and switched

-- name: may_prepare
-- On a worker: a session of a shardlord's that may not have noticed yet that this has hung up.
select from pg_stat_activity where pid = %(pid)s and application_name ~ '^shardman lord [0-9]' and pid <> pg_backend_pid()

-- name: is_prepared
-- On a worker.
select from pg_prepared_xacts where gid = %(gid)s and database = current_database()

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
