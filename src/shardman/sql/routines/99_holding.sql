-- Commits over several nodes, held for a session: the shardlord closes the gates on all nodes for it (lord/watchers/holds.py), and opens
-- them when the session says so, or is gone. A wish must be heard before the transaction in which it is made has ended, so it is a lock
-- (shardman.hold_wishes), and the answer a row.

create or replace function shardman.this_session() returns text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select to_hex(floor(extract(epoch from a.backend_start))::bigint) || '.' || to_hex(a.pid)
      from pg_stat_get_activity(pg_backend_pid()) a
$$;
comment on function shardman.this_session() is 'the session''s name, as %c of log_line_prefix';

create or replace function shardman.last_hold() returns shardman.commit_holds
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select h from shardman.commit_holds h where h.session = shardman.this_session() order by h.id desc limit 1
$$;
comment on function shardman.last_hold() is 'what has become of the last wish of this session';

create or replace function shardman.need_fresh_look() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'commits can be held and released under READ COMMITTED only: the answer comes while the statement runs'
            using errcode = 'active_sql_transaction', hint = 'Call it in a transaction of that isolation, or outside of one.';
    end if;
end
$$;
comment on function shardman.need_fresh_look() is 'raises where a statement does not see what was committed since the transaction began';

create or replace function shardman.hold_commits() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    last  shardman.commit_holds := shardman.last_hold();
    -- The shardlord gives up sooner, and says why.
    until constant timestamptz := clock_timestamp() + interval '15 s';
    told  shardman.commit_holds;
begin
    perform shardman.need_fresh_look();
    if last.id is not null and last.failed is null and last.released is null then
        raise exception 'this session holds commits already' using errcode = 'object_in_use', hint = 'select shardman.release_commits() ends that.';
    end if;
    lock table shardman.hold_wishes in row share mode;
    loop
        told := shardman.last_hold();
        exit when told.id is distinct from last.id;
        if clock_timestamp() > until then
            raise exception 'nobody holds commits: the shardlord does not answer' using errcode = 'object_not_in_prerequisite_state',
                hint = 'See shardman status; in a transaction that has held commits before, begin another one.';
        end if;
        perform pg_sleep(0.02);
    end loop;
    if told.failed is not null then
        raise exception 'commits are not held: %', told.failed using errcode = 'object_not_in_prerequisite_state', hint = 'See shardman status, and try again.';
    end if;
end
$$;
comment on function shardman.hold_commits() is
    'holds commits of transactions over several nodes of shardman.connect, for tools that copy all servers: when it returns none is half done, and '
    'none is decided until this session calls shardman.release_commits() or is gone; at most hold_commits_for seconds (shardman.settings)';

create or replace function shardman.release_commits() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    last  shardman.commit_holds := shardman.last_hold();
    until constant timestamptz := clock_timestamp() + interval '15 s';
begin
    perform shardman.need_fresh_look();
    if last.id is null or last.released is not null then
        raise exception 'this session holds no commits' using errcode = 'object_not_in_prerequisite_state', hint = 'select shardman.hold_commits() does.';
    end if;
    if last.failed is null then
        lock table shardman.hold_wishes in share update exclusive mode;
    end if;
    while last.failed is null and last.released is null loop
        if clock_timestamp() > until then
            raise exception 'whether commits were held until now is not known: the shardlord does not answer' using errcode = 'object_not_in_prerequisite_state',
                hint = 'What was copied meanwhile may not be of one instant: do it again.';
        end if;
        perform pg_sleep(0.02);
        last := shardman.last_hold();
    end loop;
    if last.failed is not null then
        raise exception 'commits were let go before: %', last.failed using errcode = 'object_not_in_prerequisite_state',
            hint = 'What was copied meanwhile is not of one instant: do it again.';
    end if;
end
$$;
comment on function shardman.release_commits() is
    'ends shardman.hold_commits() of this session; raises where they were let go before, so that what was copied meanwhile is not of one instant';

create or replace function shardman.look_for_holds() returns table (id bigint, pid int, session text, wish text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- This is asked each second, and costs less than looking at the locks.
    if not exists (select from pg_stat_activity a where a.wait_event = 'PgSleep' and a.datname = current_database())
       and not exists (select from shardman.commit_holds h where h.failed is null and h.released is null) then
        return;
    end if;
    return query
        with wishes as (
            select l.pid, bool_or(l.mode = 'ShareUpdateExclusiveLock') as release_
              from pg_locks l join pg_stat_activity a on a.pid = l.pid and a.wait_event = 'PgSleep'
             where l.relation = 'shardman.hold_wishes'::regclass and l.granted
             group by l.pid
        ), sessions as (
            select a.pid, to_hex(floor(extract(epoch from a.backend_start))::bigint) || '.' || to_hex(a.pid) as session from pg_stat_activity a
             where a.datname = current_database()
        ), held as (
            select h.id, h.pid, h.session from shardman.commit_holds h where h.failed is null and h.released is null
        )
        select h.id, h.pid, h.session, case when s.pid is null then 'gone' when w.release_ then 'release' else '' end
          from held h left join sessions s on s.session = h.session left join wishes w on w.pid = s.pid
        union all
        select null, s.pid, s.session, 'hold'
          from wishes w join sessions s on s.pid = w.pid
         where not w.release_ and not exists (select from held h where h.session = s.session);
end
$$;
comment on function shardman.look_for_holds() is
    'for the shardlord: sessions here for which commits are held (id: the row), and what they wish: hold, release, gone: nothing any more';

create or replace function shardman.tell_hold(pid int, session text, failed text) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.commit_holds h where h.since < clock_timestamp() - interval '7 days' and (h.failed is not null or h.released is not null);
    insert into shardman.commit_holds (pid, session, failed) values (tell_hold.pid, tell_hold.session, tell_hold.failed) returning id;
$$;
comment on function shardman.tell_hold(int, text, text) is 'answers a session that wants commits held';
