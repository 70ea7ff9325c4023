-- Deadlocks over several nodes: what the shardlord asks each node (lord/watchers/deadlocks.py), and how it breaks one. Which sessions are
-- of one transaction their application_name says: that of a route names the session that it works for (shardman.wanted_server), those of a
-- client of ours end with the same random number (client/sessions.py).

create or replace function shardman.lock_waits(older interval) returns table (pid int, since timestamptz, blockers int[])
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- This is asked each second, and costs less than looking at the locks.
    if not exists (select from pg_stat_activity a where a.wait_event_type = 'Lock' and a.datname = current_database()) then
        return;
    end if;
    return query
        select l.pid, l.waitstart, b.pids
          from pg_locks l join pg_stat_activity a on a.pid = l.pid and a.datname = current_database() and a.backend_type = 'client backend'
         cross join lateral (select array_remove(pg_blocking_pids(l.pid), 0)) as b (pids)
           -- The other kinds are not held until a transaction ends.
         where not l.granted and l.waitstart < clock_timestamp() - older and l.locktype not in ('extend', 'frozenid', 'page', 'spectoken')
           and b.pids <> '{}';
end
$$;
comment on function shardman.lock_waits(interval) is
    'sessions of this database that have waited for a lock for longer: since when, and for which processes';

create or replace function shardman.open_transactions()
returns table (pid int, session_id text, began timestamptz, login name, role name, acts_as name[], application text, idle bool)
language sql volatile set search_path = pg_catalog, pg_temp as $$
    with roles as materialized (
        select r.oid, r.rolname from shardman.mapped_roles() as m (role) join pg_roles r on r.rolname = m.role
        union
        select r.oid, r.rolname from pg_roles r where r.oid = shardman.our_role()
    ), logins as materialized (
        select r.oid, r.rolname,
               case when shardman.road_cluster(r.oid) = l.cluster then (select pg_get_userbyid(m.roleid) from pg_auth_members m where m.member = r.oid limit 1)
                    when not shardman.is_ordinary(r.oid) then pg_get_userbyid(shardman.our_role()) else r.rolname end as role,
               array(select w.rolname from roles w where pg_has_role(r.oid, w.oid, 'member')) as acts_as
          from pg_roles r cross join shardman.local l
         where r.oid in (select a.usesysid from pg_stat_activity a where a.datname = current_database() and a.xact_start is not null)
    )
    select a.pid, to_hex(floor(extract(epoch from a.backend_start))::bigint) || '.' || to_hex(a.pid), a.xact_start,
           o.rolname, o.role, o.acts_as, coalesce(a.application_name, ''), a.state like 'idle in transaction%'
      from pg_stat_activity a join logins o on o.oid = a.usesysid
     where a.datname = current_database() and a.backend_type = 'client backend' and a.xact_start is not null
$$;
comment on function shardman.open_transactions() is
    'sessions of this database that are in a transaction. session_id: as %c of log_line_prefix; role: as whom it acts, for a road login its role; acts_as: as whom it may reach '
    'other nodes';

create or replace function shardman.end_wait(pid int, began timestamptz, since timestamptz) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select coalesce((select pg_cancel_backend(a.pid) from pg_stat_activity a join pg_locks l on l.pid = a.pid
                      where a.pid = end_wait.pid and a.xact_start = end_wait.began and not l.granted and l.waitstart = end_wait.since), false)
$$;
comment on function shardman.end_wait(int, timestamptz, timestamptz) is
    'cancels a statement that still waits for the same lock in the same transaction; whether it did';

create or replace function shardman.note_deadlock(id text, node int, pid int, login name, application text, circle text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.deadlocks d where d.at < clock_timestamp() - interval '7 days';
    insert into shardman.deadlocks (id, node, pid, login, application, circle)
    values (note_deadlock.id, note_deadlock.node, note_deadlock.pid, note_deadlock.login, note_deadlock.application, note_deadlock.circle)
        on conflict on constraint deadlocks_pkey do nothing;
$$;
comment on function shardman.note_deadlock(text, int, int, name, text, text) is 'writes down whose transaction is about to be cancelled, and why';

create or replace function shardman.deadlock_of(pid int) returns text
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    update shardman.deadlocks d set told = true
     where d.pid = deadlock_of.pid and d.node = shardman.my_id() and d.login = session_user and not d.told and d.at > clock_timestamp() - interval '1 minute'
 returning d.circle
$$;
comment on function shardman.deadlock_of(int) is
    'for clients: the deadlock over several nodes for which a statement of this process was cancelled a moment ago, each once; null when it was not for one';
