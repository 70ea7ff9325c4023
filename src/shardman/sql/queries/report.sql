-- What a bug report has beside `status` and `doctor`. No free text of users: no options, results or statements.

-- name: commands
select id, cmd_type, status::text, parent, attempt, error_code, error, step_no, steps_total, waits_for, submitted_at, started_at, ended_at
  from shardman.cmd_log order by id desc limit 200

-- name: steps
select cmd_id, attempt, n, phase, kind, state, started_at, ended_at, error from shardman.cmd_steps
 where cmd_id in (select id from shardman.cmd_log where status in ('failed', 'in progress') order by id desc limit 20) order by 1, 2, 3

-- name: names
select relation from shardman.tables union all select relation from shardman.shared_tables union all select part_name from shardman.partitions

-- name: settings
-- Numbers and words of a list only: a text may be a command with a password.
select name, reset_val from pg_catalog.pg_settings
 where vartype in ('bool', 'integer', 'real', 'enum') and source not in ('default', 'override', 'session', 'client')

-- name: secrets
select password from shardman.node_secrets where password is not null
