create or replace view shardman.commands as
    select l.id,
           l.cmd_type,
           (select string_agg(concat(o.name || '=', o.opt), ', ' order by o.id)
              from shardman.cmd_opts o where o.cmd_id = l.id and o.opt is not null) as opts,
           l.status,
           l.error,
           l.result,
           l.parent,
           l.submitted_by,
           l.submitted_at,
           l.started_at,
           l.ended_at,
           coalesce(l.ended_at, case when l.started_at is not null then clock_timestamp() end) - l.started_at as duration,
           l.step_no,
           l.steps_total,
           l.step_name,
           l.bytes_done,
           l.bytes_total,
           l.rows_done,
           l.waits_for,
           l.attempt,
           l.reason,
           l.result_data,
           l.error_code
      from shardman.cmd_log l;
comment on view shardman.commands is 'every command with its arguments: who, when, how long, how far';
