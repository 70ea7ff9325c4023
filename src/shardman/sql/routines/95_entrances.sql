-- Entrances of a sharded table, held while nodes commit a statement that writes its rows anew.
--
-- Nodes commit one after the other, the one where the statement was sent last. Who came in by a node that has committed would go to one
-- that has not, wait there with a picture of before, and find no row: PostgreSQL shows none of a table that was rewritten since.
-- So nobody may come in by any node before all have committed, and the locks of the statement end with each node's own commit.
--
-- What lasts longer is a lock of another session, the holder, one on each other node, of the shardlord's (lord/watchers/entrances.py). It must get
-- its lock before all who wait for the statement. PostgreSQL puts who asks for a lock before those who wait for one that he has already:
-- the statement's session locks the table in ACCESS SHARE; the holder asks for ACCESS EXCLUSIVE, and waits; whoever comes now waits
-- behind it; the statement's session asks for ACCESS EXCLUSIVE, and stands before the holder. When it commits the holder has the lock at
-- once, and keeps it until the node has committed where the statement was sent, which does so last. That node has a holder, too: it is locked no sooner than others,
-- and when its holder gets the table the shardlord knows that all have committed.
--
-- Without a shardlord nothing is held, and the statement goes on. A holder ends by itself within seconds, whatever becomes of the shardlord.

create or replace function shardman.writes_anew(query text, tag text) returns bool
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    -- To hold the entrances for what writes nothing anew in the end only takes a moment longer.
    return tag = 'ALTER TABLE'
       and shardman.plain_words(query) ~* '\m(type|generated\s+(always|by)|default\s+[^(),]*\(|serial|bigserial|smallserial)(\M|(?<=\())';
end
$$;
comment on function shardman.writes_anew(text, text) is 'whether a statement may write all rows of a table anew';

create or replace function shardman.session_name(begun timestamptz, pid int) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select to_hex(floor(extract(epoch from begun))::bigint) || '.' || to_hex(pid)
$$;
comment on function shardman.session_name(timestamptz, int) is 'what %c of log_line_prefix calls a session';

create or replace function shardman.holders(session text, relation text) returns setof int
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select a.pid from pg_stat_get_activity(null) a
     where a.application_name ~ format('^shardman lord \d+ holds %s %s$', replace(session, '.', '\.'), shardman.find_relation(relation)::oid)
       and a.datid = (select d.oid from pg_database d where d.datname = current_database())
       and pg_has_role(a.usesysid, shardman.our_role(), 'usage')
       -- One that has failed, or does not try any more, is idle in its transaction.
       and a.state in ('active', 'idle')
$$;
comment on function shardman.holders(text, text) is
    'processes of the shardlord on this node that hold the entrance of a table for a session, as %c of log_line_prefix, or stand ready for it';

create or replace function shardman.ask_for_holders(relation text) returns bool
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    until   constant timestamptz := clock_timestamp() + interval '5 s';
    session constant text := shardman.this_session();
begin
    perform shardman.need_owner(relation);
    if not exists (select from pg_stat_get_activity(null) a where a.application_name ~ '^shardman lord [0-9]' and pg_has_role(a.usesysid, shardman.our_role(), 'usage')) then
        return false;
    end if;
    lock table shardman.entrance_wishes in row share mode;
    while clock_timestamp() < until loop
        if exists (select from shardman.holders(session, relation)) then
            return true;
        end if;
        perform pg_sleep(0.01);
        -- Otherwise a transaction sees the same sessions again and again.
        perform pg_stat_clear_snapshot();
    end loop;
    return false;
end
$$;
comment on function shardman.ask_for_holders(text) is
    'for the owner of a table, who has it in SHARE UPDATE EXCLUSIVE, which says to the shardlord which one: waits until it has holders on all other nodes; false: it does not answer';

create or replace function shardman.hold_entrances(relation text, query text, tag text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    held bool := false;
begin
    -- What this transaction has locked already others wait for, before any holder.
    if not shardman.writes_anew(query, tag) or shardman.is_held(shardman.find_relation(relation)) then
        return null;
    end if;
    begin
        -- Readers and writers do not wait for who waits for this.
        perform set_config('lock_timeout', '10s', true);
        execute format('lock table only %s in share update exclusive mode', shardman.name_here(relation));
        held := shardman.ask_for_holders(relation);
        raise exception 'the wish was heard, and its locks are given back' using errcode = 'SHM14';
    exception when sqlstate 'SHM14' or lock_not_available or deadlock_detected then
        null;
    end;
    return case when held then shardman.this_session() end;
end
$$;
comment on function shardman.hold_entrances(text, text, text) is
    'in front of the gate, for a statement that may write rows anew: asks the shardlord for holders, and returns for whom they are; null: there are none';

create or replace function shardman.look_for_entrances() returns table (session text, relation text, xact text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- This is asked twice a second, and costs less than looking at the locks.
    if not exists (select from pg_stat_activity a where a.wait_event = 'PgSleep' and a.datname = current_database()) then
        return;
    end if;
    return query
        select shardman.session_name(a.backend_start, a.pid), r.name, w.virtualtransaction
          from pg_locks w
          join pg_stat_activity a on a.pid = w.pid and a.datname = current_database()
          join pg_locks t on t.pid = w.pid and t.database = w.database and t.mode = 'ShareUpdateExclusiveLock' and t.granted
         cross join lateral (select shardman.sharded_name(t.relation) offset 0) as r (name)
         where w.relation = 'shardman.entrance_wishes'::regclass and w.mode = 'RowShareLock' and w.granted and r.name is not null;
end
$$;
comment on function shardman.look_for_entrances() is
    'for the shardlord: sessions here that want the entrances of a table held on the other nodes; xact: their transaction, as pg_locks names it';

create or replace function shardman.be_holder(relation text, session text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select set_config('application_name', format('%s holds %s %s', current_setting('application_name'), session, shardman.find_relation(relation)::oid), false),
           -- A shardlord that hangs holds nobody up for longer.
           set_config('idle_in_transaction_session_timeout', '5s', false), set_config('lock_timeout', '0', false)
$$;
comment on function shardman.be_holder(text, text) is 'makes a session of the shardlord known as a holder for a session that changes a table';

create or replace function shardman.lasts(xact text) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    -- Its number goes before its locks do.
    select exists (select from pg_locks l where l.locktype = 'virtualxid' and l.virtualtransaction = xact and l.mode = 'ExclusiveLock')
$$;
comment on function shardman.lasts(text) is 'whether a transaction of this server, as pg_locks names it, goes on';

create or replace function shardman.closing(relation text, session text) returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select w.virtualtransaction
      from pg_locks w
      join pg_locks t on t.pid = w.pid and t.database = w.database and t.relation = shardman.find_relation(closing.relation) and t.granted
      join pg_stat_get_activity(null) a on a.pid = w.pid and session in (shardman.session_name(a.backend_start, a.pid), substring(a.application_name from '^postgres_fdw from \d+ (\S+)$'))
     where w.relation = 'shardman.entrance_wishes'::regclass and w.mode = 'RowShareLock' and w.granted limit 1
$$;
comment on function shardman.closing(text, text) is
    'the transaction on this node, as pg_locks names it, in which a session of any node is about to lock a table for a change; null: none';

create or replace function shardman.await_call(seconds float8) returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_sleep(seconds);
    return false;
exception when query_canceled then
    return true;
end
$$;
comment on function shardman.await_call(float8) is 'for a holder: whether it was called within so many seconds';

create or replace function shardman.stand_behind(relation text, session text) returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    name constant text := shardman.name_here(relation);
    xact text;
begin
    perform pg_stat_clear_snapshot();
    xact := shardman.closing(relation, session);
    if xact is null then
        perform shardman.await_call(0.05);
        return false;
    end if;
    -- By this the session sees that the next call finds it here. Behind a call nothing is looked up: others wait from then on, and on all nodes at one time.
    lock table shardman.entrance_wishes in access share mode;
    if not shardman.await_call(0.2) then
        raise exception 'there was no try' using errcode = 'SHM14';
    end if;
    execute format('lock table only %s in access exclusive mode', name);
    if shardman.lasts(xact) then
        raise exception 'the try was given up' using errcode = 'SHM14';
    end if;
    return true;
exception when sqlstate 'SHM14' or query_canceled or deadlock_detected then
    return false;
end
$$;
comment on function shardman.stand_behind(text, text) is
    'takes a table behind the transaction of a session that is about to change it, when that has ended; false: there is none, or it goes on, and the table is given back';

create or replace function shardman.hold_entrance(relation text, session text) returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    -- The gate is tried for half a minute.
    until constant timestamptz := clock_timestamp() + interval '40 s';
begin
    while clock_timestamp() < until loop
        -- A call that comes between two looks.
        begin
            while clock_timestamp() < until loop
                if shardman.stand_behind(relation, session) then
                    return true;
                end if;
            end loop;
        exception when query_canceled then
        end;
    end loop;
    return false;
end
$$;
comment on function shardman.hold_entrance(text, text) is
    'for a holder: with each try of a session to close the gate stands behind it, and returns with the table locked when its transaction has ended; false: it does not try any more';

create or replace function shardman.call_holder(pid int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_cancel_backend(call_holder.pid);
exception when insufficient_privilege then
    -- A superuser's, and the cluster's role is none: it looks by itself, a little later.
    null;
end
$$;
comment on function shardman.call_holder(int) is 'has a holder look at what there is to do: it stands in a queue, or pauses';

create or replace function shardman.holder_state(holder int) returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select case when a.wait_event_type = 'Lock' then 'queue'
                when a.wait_event is distinct from 'PgSleep' then 'busy'
                when exists (select from pg_locks l where l.pid = holder and l.relation = 'shardman.entrance_wishes'::regclass and l.granted) then 'ready'
                else 'pause' end
      from pg_stat_get_activity(holder) a
$$;
comment on function shardman.holder_state(int) is
    'what a holder does: queue: it waits for a lock; ready: for the call to do so; pause: for a call to become ready; busy: it will do something else at once. Null: it is gone';

create or replace function shardman.await_holder(holder int, wanted text) returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    until  constant timestamptz := clock_timestamp() + interval '100 ms';
    called bool := false;
    state  text;
begin
    while clock_timestamp() < until loop
        perform pg_stat_clear_snapshot();
        state := shardman.holder_state(holder);
        if state = wanted then
            return true;
        end if;
        -- Once: a second call would be for what it does behind the first.
        if not called and state in ('queue', 'ready', 'pause') then
            perform shardman.call_holder(holder);
            called := true;
        end if;
        perform pg_sleep(0.001);
    end loop;
    return false;
end
$$;
comment on function shardman.await_holder(int, text) is 'calls a holder and waits until it is in a state; false: it is not in time';

create or replace function shardman.stand_before_holder(relation text, session text, ready bool) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    holder int;
begin
    perform shardman.need_owner(relation);
    if not ready then
        lock table shardman.entrance_wishes in row share mode;
    end if;
    perform pg_stat_clear_snapshot();
    for holder in select * from shardman.holders(session, relation) loop
        if not shardman.await_holder(holder, case when ready then 'queue' else 'ready' end) then
            raise exception 'the entrance of % is not held', relation using errcode = 'lock_not_available';
        end if;
    end loop;
end
$$;
comment on function shardman.stand_before_holder(text, text, bool) is
    'within a try to close the gate, for the owner of a table, who has it in ACCESS SHARE: has the holder of this node, if there is one, become ready, or then stand behind; raises where it does not in time';

create or replace function shardman.need_holder_behind(relation text, session text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(relation);
    if exists (select from shardman.holders(session, relation) h
                where not exists (select from pg_locks l where l.pid = h and l.relation = shardman.find_relation(need_holder_behind.relation) and not l.granted)) then
        raise exception 'the entrance of % is not held', relation using errcode = 'lock_not_available';
    end if;
end
$$;
comment on function shardman.need_holder_behind(text, text) is 'at the end of a try: raises where the holder of this node does not stand behind';

create or replace function shardman.dismiss_holder(relation text, session text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(relation);
    perform pg_stat_clear_snapshot();
    perform shardman.call_holder(h) from shardman.holders(session, relation) h;
end
$$;
comment on function shardman.dismiss_holder(text, text) is 'behind a try that was given up: takes the holder of this node out of the queue';

create or replace function shardman.await_end_of(xact text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    while shardman.lasts(xact) loop
        perform pg_sleep(0.1);
    end loop;
end
$$;
comment on function shardman.await_end_of(text) is 'waits for the end of a transaction of this server, as pg_locks names it';
