-- Signs of life of a channel's two processes, for when nothing is confirmed: slow is not broken. Asked only then.

create or replace function shardman.process_times(pid int) returns table (ticks bigint, stopped bool)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    fields text[];
begin
    -- The name before the last parenthesis may hold anything; behind it the fields are separated by blanks.
    fields := string_to_array(regexp_replace(
        pg_read_file(format('/proc/%s/stat', process_times.pid), 0, 2000, true), '^.*\) ', ''), ' ');
    if cardinality(fields) >= 13 then
        return query select fields[12]::bigint + fields[13]::bigint, fields[1] in ('T', 't');
    end if;
exception when others then
    -- No such file system, or no right to read it: then it is not known.
    return;
end
$$;
comment on function shardman.process_times(int) is
    'the processor time that a process of this server has used, in ticks of 10 ms, and whether somebody has stopped it; no row where '
    'the system does not tell';

create or replace function shardman.apply_failures() returns jsonb
language sql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
    select jsonb_object_agg(substring(s.subname from '_([0-9]+)_[0-9]+$'), jsonb_build_array(
               coalesce((to_jsonb(e) ->> 'apply_error_count')::bigint, 0),
               -- Those that help it have a leader from 16 on.
               (select min(w.pid) from pg_stat_subscription w
                 where w.subid = s.oid and w.relid is null and to_jsonb(w) ->> 'leader_pid' is null)))
      from shardman.local l
      join pg_subscription s on s.subname ~ format('^shardman_%s_[0-9]+_%s$', l.cluster, l.node_id)
                            and s.subdbid = (select oid from pg_database where datname = current_database())
     cross join pg_stat_get_subscription_stats(s.oid) as e
$$;
comment on function shardman.apply_failures() is
    'for each channel to this node, by source: how often its worker has reported an error, and the worker''s process; null where there is no channel';

create or replace function shardman.send_signs(slot text) returns table (sent bigint, wait text, ticks bigint, said text)
language sql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
    select r.sent_lsn - '0/0'::pg_lsn, a.wait_event, t.ticks,
           case when s.active_pid is null then 'it has no walsender'
                when t.stopped then format('its walsender, process %s, is stopped: let it go on (SIGCONT)', s.active_pid) end
      from pg_replication_slots s
      left join pg_stat_replication r on r.pid = s.active_pid
      left join pg_stat_activity a on a.pid = s.active_pid
      left join lateral shardman.process_times(s.active_pid) t on true
     where s.slot_name = send_signs.slot
$$;
comment on function shardman.send_signs(text) is
    'what changes while a channel''s source is at work for it: how far it has sent, what it waits for, its processor time; said: what is '
    'plainly wrong';

create or replace function shardman.apply_signs(subscription text)
returns table (heard timestamptz, received bigint, wait text, ticks bigint, said text)
language sql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
    select max(w.last_msg_receipt_time), coalesce(max(w.latest_end_lsn) - '0/0'::pg_lsn, 0),
           string_agg(concat_ws(' ', w.pid, w.received_lsn, a.wait_event), ', ' order by w.pid), sum(t.ticks)::bigint,
           case when count(w.pid) = 0 then 'its worker does not run'
                when bool_or(t.stopped) then format('its worker, process %s, is stopped: let it go on (SIGCONT)',
                                                    min(w.pid) filter (where t.stopped))
                when bool_or(a.wait_event_type = 'Lock') then format('its worker, process %s, waits for a lock that process %s holds',
                                                                     min(w.pid) filter (where a.wait_event_type = 'Lock'),
                                                                     min(b.blocking::text)) end
      from pg_stat_subscription w
      left join pg_stat_activity a on a.pid = w.pid
      left join lateral shardman.process_times(w.pid) t on true
      left join lateral (select unnest(pg_blocking_pids(w.pid)) as blocking where a.wait_event_type = 'Lock' limit 1) b on true
     where w.subname = apply_signs.subscription and w.relid is null
$$;
comment on function shardman.apply_signs(text) is
    'what changes while a channel''s destination is at work for it: when it heard its source last, how far it has come, what its workers '
    'wait for, their processor time; said: what is plainly wrong';
