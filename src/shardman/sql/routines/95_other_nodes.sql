-- How DDL gets to other nodes: through doors, foreign tables on the view shardman.ddl there, whose trigger runs what is inserted.

create or replace function shardman.open_door(node int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    door constant text := format('shardman.%I', 'door_' || node || '_' || pg_backend_pid());
begin
    if to_regclass(door) is not null then
        return;
    end if;
    execute format('create foreign table %s (statement text, path text, lock_timeout text) server %I '
                   'options (schema_name ''shardman'', table_name ''ddl'', batch_size ''1'', async_capable ''true'')', door, shardman.node_server(node));
    execute format('grant insert, select on %s to public', door);
end
$$;
comment on function shardman.open_door(int) is 'a foreign table of this transaction''s through which statements go to another node, as who inserts them';

create or replace function shardman.other_nodes() returns int[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(select n.id from shardman.reachable_nodes() n where n.lord or n.worker_status <> 'removed' order by n.id)
$$;
comment on function shardman.other_nodes() is 'the nodes, but this one, that are to have what DDL changes';

create or replace function shardman.may_lack_ddl(node int) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select not exists (select from shardman.nodes n where n.id = node and n.lord)
       and not exists (select from shardman.partitions p where p.owner = node and p.prv is null)
$$;
comment on function shardman.may_lack_ddl(int) is
    'whether DDL goes on without a node that is away: it has no rows that others use, as when others have taken over its partitions';

create or replace function shardman.open_doors(wanted int[]) returns int[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    opened int[] := '{}';
    node   int;
begin
    perform set_config('shardman.ddl_busy', 'on', true);
    foreach node in array wanted loop
        begin
            perform shardman.open_door(node);
            if shardman.may_lack_ddl(node) then
                perform shardman.through_door(node, 'select', '1s');
            end if;
            opened := opened || node;
        exception when connection_failure then
            raise notice 'node % is away: it gets this when it is back', node;
        end;
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
    return opened;
end
$$;
comment on function shardman.open_doors(int[]) is
    'opens a door to each of some nodes; those that are away and may be have none: the others are returned';

create or replace function shardman.through_door(node int, statement text, wait text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    deadline constant timestamptz := clock_timestamp() + interval '10 s';
begin
    loop
        begin
            execute format('insert into shardman.%I values ($1, $2, $3)', 'door_' || node || '_' || pg_backend_pid())
              using statement, current_setting('shardman.ddl_path', true), wait;
            return;
        exception when insufficient_privilege then
            -- Who has his first sharded or shared table only just now is let in by each node as soon as it has heard of that.
            if sqlerrm !~ '\m(ddl|shardman)\M' or clock_timestamp() > deadline then
                raise;
            end if;
            perform pg_sleep(0.2);
        end;
    end loop;
exception when sqlclient_unable_to_establish_sqlconnection or connection_failure then
    raise exception 'node % cannot be reached, and this is done on all nodes or on none', node
        using errcode = 'connection_failure', detail = sqlerrm, hint = 'Start it, or remove it with shardman.rm_node, and try again.';
end
$$;
comment on function shardman.through_door(int, text, text) is 'runs a statement on another node, as the caller, in his transaction; wait: its lock_timeout there';

create or replace function shardman.do_alike(statement text, words jsonb) returns void
language plpgsql as $$
declare
    former pg_catalog.jsonb;
    name   pg_catalog.text;
begin
    select pg_catalog.jsonb_object_agg(w.key, pg_catalog.current_setting(w.key)) into former
      from pg_catalog.jsonb_each_text(words) w where pg_catalog.current_setting(w.key, true) operator(pg_catalog.<>) w.value;
    for name in select pg_catalog.jsonb_object_keys(former) loop
        perform pg_catalog.set_config(name, words operator(pg_catalog.->>) name, true);
    end loop;
    perform pg_catalog.set_config('shardman.ddl_arrived', statement, true);
    execute statement;
    -- The sender's server reads what comes back from here.
    for name in select pg_catalog.jsonb_object_keys(former) loop
        perform pg_catalog.set_config(name, former operator(pg_catalog.->>) name, true);
    end loop;
end
$$;
comment on function shardman.do_alike(text, jsonb) is
    'a statement that came through a door, its constants read by the settings of the session where it was sent: what day 02/03/2019 is. Without a search_path of its own: '
    'the statement''s names are read by the sender''s';

create or replace function shardman.read_alike(query text, words text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when words <> '' then format('select shardman.do_alike(%L, %L)', query, words) else query end
$$;
comment on function shardman.read_alike(text, text) is 'a statement as it goes through a door; words: what shardman.ddl_path has kept, where that is known';

create or replace function shardman.send_on(node int, query text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text;
begin
    perform shardman.through_door(node, shardman.read_alike(shardman.one_statement(query), current_setting('shardman.ddl_words', true)), '10s');
exception when undefined_object then
    -- PostgreSQL says what is missing, and not where.
    name := (regexp_match(sqlerrm, '"(.+)"'))[1];
    raise exception 'node %: %', node, sqlerrm
        using errcode = 'undefined_object',
              hint = case when exists (select from pg_roles r where r.rolname = name)
                          then format('A superuser makes the role on all nodes: select shardman.sync_roles(shardman.my_id(), %L).', name)
                          else 'Make it on that node, too.' end;
when duplicate_table or duplicate_object then
    raise exception 'node %: %', node, sqlerrm
        using errcode = sqlstate, hint = 'Rename or drop what has the name there.';
when insufficient_privilege then
    raise exception 'node %: %', node, sqlerrm
        using errcode = 'insufficient_privilege', hint = 'GRANT, sent to any node by itself, gives rights on all.';
when undefined_function then
    raise exception 'node %: %', node, sqlerrm
        using errcode = 'undefined_function', hint = 'CREATE OR REPLACE FUNCTION, sent to any node by itself, makes it on all.';
end
$$;
comment on function shardman.send_on(int, text) is 'sends the caller''s statement on to another node; what that lacks is said with its number, and how a role gets there';

create or replace view shardman.ddl as
    select shardman.hold_asked()::text as statement, null::text as path, null::text as lock_timeout;
comment on view shardman.ddl is
    'a statement inserted here is run, as who inserts it: it comes from another node, where it was sent. Who reads it gets the lock that was asked for';

create or replace function shardman.ddl_insert() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform set_config('shardman.ddl', 'spread', true), set_config('lock_timeout', new.lock_timeout, true),
            set_config('synchronous_commit', 'local', true), set_config('search_path', new.path, true);
    for try in 1..5 loop
        begin
            execute new.statement;
            exit;
        exception when internal_error then
            -- Rights have no lock: whoever changes those of the same table, as the reconciler does, is in the way for a moment.
            if try operator(pg_catalog.=) 5 or new.statement operator(pg_catalog.!~*) '^(select shardman\.do_alike\( ?e?'')?(grant|revoke)\M' then
                raise;
            end if;
            perform pg_catalog.pg_sleep(0.1);
        end;
    end loop;
    perform pg_catalog.set_config('shardman.ddl', '', true);
    return new;
end
$$;
comment on function shardman.ddl_insert() is 'runs what came through a door';
create or replace trigger ddl_insert instead of insert on shardman.ddl
    for each row execute function shardman.ddl_insert();
