-- The gate in front of DDL of a shared table (96_shared_ddl.sql). It is another than that of a sharded one: the table's writers hold a lock of the whole
-- cluster (98_shared_writes.sql), so the statement first stands in line for it as they do. Then nobody writes to any copy, and each is locked against
-- its readers, for a moment only, again and again. Who stands in line behind it has a lock already, where he is: after two seconds of trying
-- he is sent away with 40001.

create or replace function shardman.on_shared_gate() returns event_trigger
language plpgsql as $$
begin
    if pg_catalog.length(pg_catalog.current_setting('shardman.ddl_shared', true)) operator(pg_catalog.>) 0
       and pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.<>) 'on' then
        perform shardman.pass_shared_gate(tg_tag);
    end if;
end
$$;
comment on function shardman.on_shared_gate() is 'before DDL on a shared table, as the caller: closes the gate';

create or replace function shardman.loosen_shared(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.loosen_key(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.loosen_sequences(relation);
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.loosen_shared(text) is
    'within DDL that gives columns of a shared table other types, for its owner: shardman.loosen_key, and what its sequences have that is in the way; shardman.keep_shared makes it again';

create or replace function shardman.hold_way(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(relation);
    lock table shardman.shared_locks in share update exclusive mode nowait;
end
$$;
comment on function shardman.hold_way(text) is
    'within DDL, for the owner of a shared table, on its first node: the lock by which those whom shardman.make_way sends away see why, to the end of the transaction';

create or replace function shardman.make_way(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    until constant timestamptz := clock_timestamp() + interval '0.5 s';
    place record;
    away  int[];
begin
    perform shardman.need_owner(relation);
    select split_part(trim('()' from l.ctid::text), ',', 1)::int as page, split_part(trim('()' from l.ctid::text), ',', 2)::int as tuple into place
      from shardman.shared_locks l where l.relation = shardman.shared_lock_name(make_way.relation) and l.kind = 'turn';
    select array_agg(shardman.send_away(k.pid)) into away
      from pg_locks k
     where k.locktype = 'tuple' and k.relation = 'shardman.shared_locks'::regclass and k.page = place.page and k.tuple = place.tuple
       and k.pid <> pg_backend_pid();
    -- Until they have gone: nobody is sent away twice, for the second time in whatever he does next.
    while exists (select from pg_locks k where k.locktype = 'tuple' and k.relation = 'shardman.shared_locks'::regclass and k.pid = any (away))
          and clock_timestamp() < until loop
        perform pg_sleep(0.002);
    end loop;
end
$$;
comment on function shardman.make_way(text) is
    'within DDL, for the owner of a shared table, on its first node, after shardman.hold_way: those who wait for their turn to write get 40001, '
    'and give back the lock that they have on the table where they are';

create or replace function shardman.send_away(pid int) returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    return case when pg_cancel_backend(pid) then pid end;
exception when insufficient_privilege then
    return null;
end
$$;
comment on function shardman.send_away(int) is 'cancels what a session is doing, where that is allowed; returns the session, null where it was not';

create or replace function shardman.at_first_nodes(does text, wait text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text;
    at   record;
begin
    foreach name in array shardman.ddl_shared() loop
        at := shardman.shared_nodes(name);
        if at.nodes[1] = at.me then
            execute format('select shardman.%I(%L)', does, name);
        else
            perform shardman.through_door(at.nodes[1], format('select shardman.%I(%L)', does, name), wait);
        end if;
    end loop;
end
$$;
comment on function shardman.at_first_nodes(text, text) is 'runs a function of ours for each shared table that a statement is about, on the first node of the table';

create or replace function shardman.may_hurry(wait text) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.at_first_nodes('hold_way', wait);
    return true;
exception when lock_not_available then
    return false;
end
$$;
comment on function shardman.may_hurry(text) is 'whether this is the only DDL that sends away who stands in line, from now to the end of the transaction';

create or replace function shardman.lock_shared_copies(tables text[], nodes int[], wait text, hurry bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    retypes constant bool := shardman.ddl_lock_modes('ALTER TABLE', shardman.statement_now()) like '%,keys';
    me      constant int := (shardman.shared_nodes(tables[1])).me;
    locks   constant text := (select string_agg(format('lock table only %s in access exclusive mode', shardman.name_here(t)), '; ' order by t) from unnest(tables) t)
                             || case when retypes then format('; select shardman.loosen_shared(%L)', tables[1]) else '' end
                             || case when shardman.drops_from(shardman.statement_now()) then format('; select shardman.loosen_key(%L)', tables[1]) else '' end;
    node    int;
begin
    foreach node in array array[me] || nodes loop
        if hurry then
            perform shardman.at_first_nodes('make_way', wait);
        end if;
        if node = me then
            perform set_config('lock_timeout', wait, true);
            execute locks;
        else
            perform shardman.through_door(node, locks, wait);
        end if;
    end loop;
end
$$;
comment on function shardman.lock_shared_copies(text[], int[], text, bool) is
    'locks all copies of shared tables, one after the other. hurry: those who stand in line to write are sent away before each';

create or replace function shardman.close_shared_gate(wait text, hurry bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tables constant text[] := shardman.ddl_shared();
    name   text;
begin
    foreach name in array tables loop
        -- Its trigger stands in line with the table's writers, as the table's owner.
        execute format('delete from only %s where false', shardman.name_here(name));
    end loop;
    perform shardman.lock_shared_copies(tables, coalesce(string_to_array(nullif(current_setting('shardman.ddl_nodes', true), ''), ',')::int[], '{}'), wait, hurry);
end
$$;
comment on function shardman.close_shared_gate(text, bool) is 'one try: raises where a lock is not had within wait';

create or replace function shardman.pass_shared_gate(tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    mine     constant text := current_setting('lock_timeout');
    -- Whoever stands in line to write has a lock on the table where he is, and keeps it until he may write: while several
    -- write without a pause there is no moment in which nobody does.
    polite   constant interval := '2 s';
    begun    constant timestamptz := clock_timestamp();
    hurry    bool := false;
    wait     numeric := 100;
begin
    perform shardman.send_now(string_to_array(concat_ws(',', nullif(current_setting('shardman.ddl_nodes', true), ''),
                                                        nullif(current_setting('shardman.ddl_now_door', true), '')), ',')::int[]);
    -- Everybody may go on reading and writing.
    if shardman.ddl_lock_modes(tag, shardman.statement_now()) = '' or tag like '% STATISTICS' then
        return;
    end if;
    loop
        hurry := hurry or clock_timestamp() > begun + polite and shardman.may_hurry(round(wait) || 'ms');
        begin
            perform shardman.close_shared_gate(round(wait) || 'ms', hurry);
            exit;
        exception when lock_not_available or deadlock_detected or serialization_failure then
            -- That node has seen its metadata, and sees the same until the end of this transaction (postgres_fdw reads there in REPEATABLE
            -- READ): to wait does not help. What comes from there has a SQLSTATE and a text, and nothing else to know it by.
            if sqlerrm like '% knows of other copies of %' then
                raise;
            end if;
            perform shardman.need_time_left(shardman.ddl_shared(), 'change', begun, sqlerrm);
        end;
        wait := least(500, wait * 1.3);
        perform pg_sleep(random() * 0.05);
    end loop;
    -- Another table that the statement refers to may have writers who wait for this one on another node: nobody would see the circle.
    perform set_config('lock_timeout', case mine when '0' then '10s' else mine end, true);
end
$$;
comment on function shardman.pass_shared_gate(text) is 'closes the gate of shared tables for a kind of statement, trying again for half a minute';
