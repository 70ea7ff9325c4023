-- Commands that have ended, for OpenTelemetry: see shardman.metrics.tracing.

-- name: now
select clock_timestamp() as now

-- name: ended
-- Whole ones: with the commands that are parts of them, however deep.
with recursive whole as (
    select c.id, c.id as root from shardman.commands c
     where c.parent is null and c.ended_at > %(after)s and c.id <> all (%(known)s)
    union all
    select c.id, w.root from whole w join shardman.commands c on c.parent = w.id
)
select w.root, c.id, c.parent, c.cmd_type, c.opts, c.status, c.error, c.submitted_by, c.submitted_at, c.started_at,
       coalesce(c.ended_at, clock_timestamp()) as ended_at, c.attempt
  from whole w join shardman.commands c using (id) order by w.root, c.id

-- name: steps
select s.cmd_id, s.attempt, s.n, s.phase, s.title, s.state, s.error, s.started_at, coalesce(s.ended_at, s.started_at) as ended_at
  from shardman.cmd_steps s where s.cmd_id = any (%(ids)s) and s.started_at is not null order by s.cmd_id, s.attempt, s.n, s.started_at
