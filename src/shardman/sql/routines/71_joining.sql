-- Whether a server can be a node, and what becoming one changes in its database beside the schema shardman.

create or replace function shardman.hash_samples() returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_object_agg(type, hash::text) from (values
        ('smallint', hash_record_extended(row(42::int2), 1)), ('integer', hash_record_extended(row(42::int4), 1)),
        ('bigint', hash_record_extended(row(-42::int8), 1)), ('oid', hash_record_extended(row(42::oid), 1)),
        ('text', hash_record_extended(row('Straße'::text), 1)), ('varchar', hash_record_extended(row('Ünlü'::varchar), 1)),
        ('text collate "C"', hash_record_extended(row('Straße'::text collate "C"), 1)),
        ('character', hash_record_extended(row('a  '::char(5)), 1)),
        ('name', hash_record_extended(row('Name'::name), 1)), ('"char"', hash_record_extended(row('x'::"char"), 1)),
        ('uuid', hash_record_extended(row('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid), 1)),
        ('date', hash_record_extended(row('2013-01-01'::date), 1)), ('time', hash_record_extended(row('12:34:56.789'::time), 1)),
        ('timetz', hash_record_extended(row('12:34:56+02'::timetz), 1)),
        ('timestamp', hash_record_extended(row('2013-01-01 12:34:56.789'::timestamp), 1)),
        ('timestamptz', hash_record_extended(row('2013-01-01 12:34:56+00'::timestamptz), 1)),
        ('interval', hash_record_extended(row('1 mon 2 days'::interval), 1)),
        ('numeric', hash_record_extended(row(12345.678::numeric), 1)), ('boolean', hash_record_extended(row(true), 1)),
        ('bytea', hash_record_extended(row('\xdeadbeef'::bytea), 1)), ('inet', hash_record_extended(row('10.1.2.3/8'::inet), 1)),
        ('cidr', hash_record_extended(row('10.0.0.0/8'::cidr), 1)),
        ('macaddr', hash_record_extended(row('08:00:2b:01:02:03'::macaddr), 1)),
        ('macaddr8', hash_record_extended(row('08:00:2b:01:02:03:04:05'::macaddr8), 1)),
        ('real', hash_record_extended(row(1.5::float4), 1)), ('double precision', hash_record_extended(row(-2.25::float8), 1)),
        ('jsonb', hash_record_extended(row('{"a": [1, null]}'::jsonb), 1)),
        ('integer[]', hash_record_extended(row(array[1, 2, 3]), 1)), ('text[]', hash_record_extended(row(array['a', null]), 1))
    ) as sample (type, hash)
$$;
comment on function shardman.hash_samples() is 'hashes of samples of every type that a sharding key may have: they must be the same on all nodes';

create or replace function shardman.try_server(options jsonb, password text, question text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    answer bool;
    reason text;
    detail text;
begin
    begin
        execute format('create server shardman_try foreign data wrapper postgres_fdw options (%s)',
            (select string_agg(format('%I %L', key, value), ', ')
               from jsonb_each_text('{"connect_timeout": "5"}' || (options - 'user'))));
        execute format('create user mapping for current_user server shardman_try options (%s)',
            shardman.options_change(null, jsonb_strip_nulls(jsonb_build_object('user', options ->> 'user', 'password', password))));
        create foreign table shardman.try_activity (pid int, backend_start timestamptz) server shardman_try
            options (schema_name 'pg_catalog', table_name 'pg_stat_activity');
        create foreign table shardman.try_local (cluster text, node_id int) server shardman_try
            options (schema_name 'shardman', table_name 'local');
        execute question into answer;
        raise exception 'answered' using errcode = 'SHM03';
    exception
        when sqlstate 'SHM03' then
            -- Everything made here is undone with the block.
            return case when not coalesce(answer, false) then 'the address leads to another server or database' end;
        when others then
            -- Not raised again: the server's log would show the statement, with the password in it.
            get stacked diagnostics reason = message_text, detail = pg_exception_detail;
            return concat_ws(': ', replace(reason, 'could not connect to server "shardman_try"', 'no connection'), nullif(detail, ''));
    end;
end
$$;
comment on function shardman.try_server(jsonb, text, text) is
    'why this node cannot reach a server by postgres_fdw, or the question about it is not answered by true; null when all is well; leaves nothing';

create or replace function shardman.try_session(options jsonb, password text, pid int, started timestamptz) returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.try_server(options, password, format(
        'select exists (select from shardman.try_activity where pid = %s and backend_start = %L::timestamptz)', pid, started))
$$;
comment on function shardman.try_session(jsonb, text, int, timestamptz) is
    'as shardman.try_server: whether a certain session runs on the server that the options lead to, which proves that it is the one meant';

create or replace function shardman.try_node(options jsonb, password text, cluster text, node_id int) returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.try_server(options, password, format(
        'select exists (select from shardman.try_local where cluster = %L and node_id = %s)', cluster, node_id))
$$;
comment on function shardman.try_node(jsonb, text, text, int) is 'as shardman.try_server: whether a node of the cluster is where the options lead to';

create or replace function shardman.made(what text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.local set made = made || what where what <> all (made)
$$;
comment on function shardman.made(text) is 'remembers what joining the cluster made in this database';

create or replace function shardman.pin_settings() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name_  text;
    value_ text;
begin
    -- Apply workers and walsenders are begun by nobody's connection string.
    for name_, value_ in
        select w.name, w.value
          from (values ('default_transaction_read_only', 'off'), ('transaction_timeout', '0')) as w (name, value)
         where current_setting(w.name, true) is not null
           and not exists (
               select from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) as c
                where d.datname = current_database() and s.setrole = (select oid from pg_roles where rolname = current_user) and split_part(c, '=', 1) = w.name)
    loop
        execute format('alter role %I in database %I set %s = %L', current_user, current_database(), name_, value_);
        perform shardman.made('pinned ' || name_);
    end loop;
end
$$;
comment on function shardman.pin_settings() is
    'the nodes'' role, in this database, is not disturbed by what was set for the database, for the role everywhere, or for all';

create or replace function shardman.set_database() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    wanted record;
begin
    for wanted in
        select w.name, w.value
          from (values ('enable_partitionwise_join', 'on'), ('enable_partitionwise_aggregate', 'on'),
                       -- A correlated sub-select over a sharded table inside a scan of another makes PostgreSQL ask
                       -- one connection asynchronously twice: "epoll_ctl() failed: File exists".
                       ('enable_async_append', 'off')) as w (name, value)
         -- What the user has set for the database stays.
         where not exists (
               select from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) as c
                where d.datname = current_database() and s.setrole = 0 and split_part(c, '=', 1) = w.name)
    loop
        execute format('alter database %I set %s = %L', current_database(), wanted.name, wanted.value);
        perform shardman.made('setting ' || wanted.name);
    end loop;
    perform shardman.pin_settings();
end
$$;
comment on function shardman.set_database() is 'settings of the database without which queries over partitions are planned badly';

create or replace function shardman.reset_database() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    thing text;
begin
    for thing in select m from shardman.local, unnest(made) as m where m like 'setting %' loop
        execute format('alter database %I reset %s', current_database(), split_part(thing, ' ', 2));
    end loop;
    for thing in select m from shardman.local, unnest(made) as m where m like 'pinned %' loop
        execute format('alter role %I in database %I reset %s', current_user, current_database(), split_part(thing, ' ', 2));
    end loop;
    update shardman.local
       set made = array(select m from unnest(made) as m where m not like 'setting %' and m not like 'pinned %');
    perform shardman.drop_roads();
    perform shardman.drop_all_shared_triggers();
end
$$;
comment on function shardman.reset_database() is
    'takes back what is outside of the schema: what shardman.set_database has set, road logins, and the triggers of shared tables';

create or replace function shardman.note_missing_schemas() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.made('schema ' || quote_ident(s.name))
      from (select distinct (shardman.relation_parts(relation))[1] as name from shardman.tables) as s
     where to_regnamespace(quote_ident(s.name)) is null
$$;
comment on function shardman.note_missing_schemas() is 'remembers which schemas of sharded tables this database does not have yet';

create or replace function shardman.make_needed(objects jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.made(format('%s %s', o ->> 'kind', o ->> 'name'))
       from jsonb_array_elements(objects) o where not shardman.has_object(o ->> 'kind', o ->> 'name');
    perform shardman.make_objects(objects);
end
$$;
comment on function shardman.make_needed(jsonb) is
    'makes what this node lacks of what other nodes'' tables are made of (shardman.objects_below), and remembers it until the node has joined';

create or replace function shardman.other_words(objects jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('what', w.kind || ' ' || w.name, 'here', w.statements[1], 'there', o #>> '{statements,0}')
                              order by w.kind = 'function', w.name), '[]')
      from jsonb_array_elements(objects) o join shardman.spread_objects() w on (w.kind, w.name) = (o ->> 'kind', o ->> 'name')
     -- Schemas and extensions are made where there are none, and are not what rows are read by.
     where w.kind not in ('schema', 'extension') and w.statements[1] <> o #>> '{statements,0}'
$$;
comment on function shardman.other_words(jsonb) is
    'which types and functions that other nodes'' tables are made of (shardman.objects_below) this node has by that name, and defined otherwise';

create or replace function shardman.keep_needed() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.local set made = array(select m from unnest(made) m where m !~ '^(type|domain|function|procedure|aggregate) ' and m !~ '^extension (?!postgres_fdw$)')
$$;
comment on function shardman.keep_needed() is 'the node has joined: what shardman.make_needed has made stays when it leaves';

create or replace function shardman.take_back() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    left_ text[];
    kept  text[];
    thing text;
begin
    perform shardman.reset_database();
    left_ := array(select m from shardman.local, unnest(made) as m order by m ~ '^schema ', m ~ '^extension ');
    loop
        kept := '{}';
        foreach thing in array left_ loop
            begin
                execute format('drop %s', thing);
            exception
                when undefined_object or undefined_function or invalid_schema_name then
                    null;  -- The user has dropped it himself.
                when dependent_objects_still_exist or insufficient_privilege then
                    kept := kept || thing;
            end;
        end loop;
        -- One may have been in the way of another; the user has the rest in use by now.
        exit when cardinality(kept) in (0, cardinality(left_));
        left_ := kept;
    end loop;
end
$$;
comment on function shardman.take_back() is 'takes back all that joining the cluster made in this database beside the schema shardman';
