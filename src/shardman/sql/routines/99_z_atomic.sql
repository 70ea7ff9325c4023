-- CALL shardman.atomic(…): statements on rows of several nodes, all of them or none, for drivers that cannot route. It does what the Python
-- client does (99_client_transactions.sql), from within the server that was connected to: this node's own transaction is the first part and
-- its commit the decision; the other parts are in sessions of contrib's dblink, which act as who calls. What a session that ends leaves,
-- the shardlord ends, as it does what a client leaves.

create or replace function shardman.dblink_schema() returns name
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_ constant name := (select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'dblink');
begin
    if found_ is null then
        raise exception 'shardman.atomic needs the extension dblink on the node where it is called' using errcode = 'feature_not_supported',
            hint = 'A superuser makes it there, on all nodes alike: set shardman.ddl = ''here''; create extension dblink;';
    end if;
    return found_;
end
$$;
comment on function shardman.dblink_schema() is 'the schema of contrib''s dblink; raises where it is not installed';

create or replace function shardman.atomic_link(node int) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('shardman atomic %s %s', node, left(md5(shardman.caller()), 16))
$$;
comment on function shardman.atomic_link(int) is 'what dblink calls the session on another node that is a part of who calls';

create or replace function shardman.session_id() returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select to_hex(floor(extract(epoch from a.backend_start))::bigint) || '.' || to_hex(a.pid)
      from pg_stat_get_activity(pg_backend_pid()) a
$$;
comment on function shardman.session_id() is 'this session''s, as %c of log_line_prefix has it';

create or replace function shardman.atomic_way(node int) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.format_connstring(jsonb_object_agg(o.key, case when o.key = 'application_name'
                                                                   then format('postgres_fdw from %s %s', shardman.my_id(), shardman.session_id()) else o.value end))
      from shardman.nodes n
     cross join lateral jsonb_each_text(shardman.wanted_server(n) || shardman.wanted_mapping(n, shardman.caller())) as o
     where n.id = node and o.key not in ('fetch_size', 'batch_size', 'async_capable', 'parallel_commit', 'parallel_abort', 'use_remote_estimate',
                                         'password_required')
$$;
comment on function shardman.atomic_way(int) is
    'the connection string by which the caller''s statements reach a node through routes. By its name the shardlord knows the session as one of this one';

create or replace function shardman.open_atomic_link(node int) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- It contains the password of the caller's road, which he does not see.
    execute format('select %I.dblink_connect($1, $2)', shardman.dblink_schema()) using shardman.atomic_link(node), shardman.atomic_way(node);
exception when sqlclient_unable_to_establish_sqlconnection then
    raise exception 'node % cannot be reached', node using errcode = 'sqlclient_unable_to_establish_sqlconnection', hint = 'Repeat it when it answers, or was taken over from.';
end
$$;
comment on function shardman.open_atomic_link(int) is 'connects to another node as who calls';

create or replace function shardman.drop_atomic_link(link text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('select %1$I.dblink_disconnect($1) where $1 = any (%1$I.dblink_get_connections())', shardman.dblink_schema()) using link;
end
$$;
comment on function shardman.drop_atomic_link(text) is 'ends a session on another node; what is open in it is rolled back';

create or replace function shardman.ask_part(node int, query text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    schema_ constant name := shardman.dblink_schema();
    link    constant text := shardman.atomic_link(node);
    busy    bool;
    answer  text;
begin
    execute format('select %I.dblink_send_query($1, $2)', schema_) using link, query;
    -- dblink waits without hearing that it is to stop, up to PostgreSQL 16.
    loop
        execute format('select %I.dblink_is_busy($1) = 1', schema_) into busy using link;
        exit when not busy;
        perform pg_sleep(0.001);
    end loop;
    execute format('select x from %I.dblink_get_result($1) as t (x text)', schema_) into answer using link;
    -- It is ready for the next one behind an empty result.
    execute format('select count(*) from %I.dblink_get_result($1) as t (x text)', schema_) using link;
    return answer;
end
$$;
comment on function shardman.ask_part(int, text) is 'what another node answers to one statement, the first column of the first row as text';

create or replace function shardman.do_part(statement text, params text[], path text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    counted bigint;
begin
    perform set_config('search_path', path, true);
    execute statement using params[1], params[2], params[3], params[4], params[5], params[6], params[7], params[8],
                            params[9], params[10], params[11], params[12], params[13], params[14], params[15], params[16];
    get diagnostics counted = row_count;
    return counted;
end
$$;
comment on function shardman.do_part(text, text[], text) is 'does a statement under another search_path; how many rows it was about';

create or replace function shardman.begin_part(node int, path text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    started constant text := format('begin isolation level %s', current_setting('transaction_isolation'));
    theirs  text;
begin
    begin
        perform shardman.ask_part(node, started);
    exception when others then
        -- There is none yet, or it is gone.
        perform shardman.drop_atomic_link(shardman.atomic_link(node)), shardman.open_atomic_link(node), shardman.ask_part(node, started);
    end;
    -- Nothing of an earlier transaction must be in it, whatever has cut that short.
    theirs := shardman.ask_part(node, format(
        'select max(shardman.caller()::text) from (values (%L, %L), (%L, %L), (%L, %L), (%L, %L), (%L, %L)) as s (name, value)'
        ' where set_config(name, value, true) is not null and pg_current_xact_id_if_assigned() is null',
        'search_path', path, 'TimeZone', current_setting('TimeZone'), 'DateStyle', current_setting('DateStyle'),
        'IntervalStyle', current_setting('IntervalStyle'), 'lock_timeout', current_setting('lock_timeout')));
    if theirs is null then
        raise exception 'the session on node % was left in a transaction', node using errcode = 'serialization_failure', hint = 'Repeat it.';
    end if;
    if theirs is distinct from shardman.caller()::text then
        -- Decisions count for parts of the same role only.
        raise exception 'statements of % arrive on node % as %', quote_ident(shardman.caller()), node, quote_ident(theirs) using errcode = 'insufficient_privilege',
            hint = 'Call shardman.atomic as an ordinary role that may use the tables.';
    end if;
end
$$;
comment on function shardman.begin_part(int, text) is 'begins a transaction on another node like the one here';

create or replace function shardman.atomic_step(step jsonb) returns table (node int, statement text, params text[], rows bigint)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if jsonb_typeof(step) is distinct from 'object' or step ->> 'table' is null or step ->> 'sql' is null or coalesce(jsonb_typeof(step -> 'key'), 'null') in ('null', 'object')
       or coalesce(jsonb_typeof(step -> 'params'), 'array') <> 'array' or coalesce(jsonb_array_length(step -> 'params'), 0) > 16 then
        raise exception 'no step of shardman.atomic: %', coalesce(step::text, 'null') using errcode = 'invalid_parameter_value',
            hint = 'A step is an object with table, key (a value, or an array of them), sql, and if need be params (an array, of 16 at most) and rows (how many it must be about).';
    end if;
    return query
        select p.node, step ->> 'sql', array(select x from jsonb_array_elements_text(step -> 'params') with ordinality as u (x, i) order by i), (step ->> 'rows')::bigint
          from shardman.partition_of(step ->> 'table', variadic
                   case when jsonb_typeof(step -> 'key') = 'array' then array(select x from jsonb_array_elements_text(step -> 'key') with ordinality as u (x, i) order by i)
                        else array[step ->> 'key'] end) as p;
end
$$;
comment on function shardman.atomic_step(jsonb) is 'a step of shardman.atomic, and the node that has its rows';

create or replace function shardman.do_step(step jsonb, path text, here int, others int[]) returns table (node int, counted bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s record;
begin
    select * into s from shardman.atomic_step(do_step.step);
    if s.node = here then
        counted := shardman.do_part(s.statement, s.params, path);
    else
        if s.node <> all (others) then
            perform shardman.begin_part(s.node, path);
        end if;
        counted := shardman.ask_part(s.node, format('select shardman.do_part(%L, %L, %L)', s.statement, s.params, path))::bigint;
    end if;
    if counted is distinct from coalesce(s.rows, counted) then
        raise exception 'a step was about % rows, not %: %', counted, s.rows, s.statement using errcode = 'SHM15', hint = 'Nothing was done, on no node.';
    end if;
    node := nullif(s.node, here);
    return next;
end
$$;
comment on function shardman.do_step(jsonb, text, int, int[]) is 'does a step where its rows are; node: null where that is here';

create or replace function shardman.prepare_parts(others int[]) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    gid     constant text := shardman.first_part(replace(gen_random_uuid()::text, '-', ''), others);
    tickets text[] := '{}';
    other   int;
begin
    foreach other in array others loop
        tickets := tickets || shardman.ask_part(other, format('select shardman.other_part(%L)', gid));
        perform shardman.ask_part(other, format('prepare transaction %L', gid));
    end loop;
    tickets := array_remove(tickets, null);
    if tickets <> '{}' then
        perform shardman.decide(gid, tickets);
    end if;
    return gid;
end
$$;
comment on function shardman.prepare_parts(int[]) is 'prepares the other parts; they are committed when this transaction is. Returns their name';

create or replace function shardman.leave_parts() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    links text[];
begin
    execute format('select %I.dblink_get_connections()', shardman.dblink_schema()) into links;
    perform shardman.drop_atomic_link(l) from unnest(links) as l where l ~ '^shardman atomic [0-9]+ [0-9a-f]{16}$';
end
$$;
comment on function shardman.leave_parts() is 'ends the sessions on other nodes: what is open in them is rolled back, and what is prepared the shardlord rolls back';

create or replace function shardman.commit_parts(others int[], gid text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    other int;
begin
    foreach other in array others loop
        begin
            perform shardman.ask_part(other, format('commit prepared %L', gid));
        exception when others then
            -- The shardlord does it.
            perform shardman.drop_atomic_link(shardman.atomic_link(other));
        end;
    end loop;
end
$$;
comment on function shardman.commit_parts(int[], text) is 'commits what is prepared on other nodes; the sessions there are kept for the next time, as those of routes are';

create or replace function shardman.begin_atomic(steps jsonb, path text, out gid text, out others int[], out counts bigint[])
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    done   record;
    here   constant int := (select p.node from shardman.transaction_place() p);
    step   jsonb;
begin
    if here is null or jsonb_typeof(steps) is distinct from 'array' then
        raise exception 'shardman.atomic wants an array of steps, on a node of a cluster' using errcode = 'invalid_parameter_value',
            hint = 'See docs/client.md, "Other languages". max_prepared_transactions must not be 0.';
    end if;
    others := '{}';
    counts := '{}';
    begin
        for step in select x from jsonb_array_elements(steps) with ordinality as u (x, i) order by i loop
            select * into done from shardman.do_step(step, path, here, others);
            counts := counts || done.counted;
            if done.node is not null and done.node <> all (others) then
                others := others || done.node;
            end if;
        end loop;
        if others <> '{}' then
            gid := shardman.prepare_parts(others);
        end if;
    exception when query_canceled or others then
        -- What is prepared by now the shardlord rolls back, for there will be no decision.
        perform shardman.leave_parts();
        raise;
    end;
end
$$;
comment on function shardman.begin_atomic(jsonb, text) is 'does all steps, and prepares what is on other nodes';

-- It commits, and a procedure with a search_path of its own must not. So it names everything in full.
create or replace procedure shardman.atomic(steps jsonb, inout counts bigint[] default null)
language plpgsql as $$
declare
    gid    pg_catalog.text;
    others pg_catalog.int4[];
begin
    -- Where it is called inside of a transaction this fails, before anything was done.
    commit;
    select b.gid, b.others, b.counts into gid, others, counts
      from shardman.begin_atomic(steps, pg_catalog.current_setting('search_path')) as b;
    commit;
    if gid is not null then
        perform shardman.commit_parts(others, gid);
    end if;
end
$$;
comment on procedure shardman.atomic(jsonb, bigint[]) is
    'does statements on rows of several nodes, all or none: an array of {"table": name, "key": value or values, "sql": statement, "params": [text…], "rows": how many it '
    'must be about}. counts: rows of each. Not inside of a transaction. Needs the extension dblink';
