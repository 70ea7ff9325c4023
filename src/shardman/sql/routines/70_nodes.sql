-- How a node reaches the others: foreign servers, user mappings, and the lord's inbox.

create or replace function shardman.server_options(node shardman.nodes) returns table (option text, value text)
language sql stable set search_path = pg_catalog as $$
    select key, value from jsonb_each_text(node.options) where key <> 'user'
    union all
    select o.option, shardman.setting(o.option, o.value)
      from (values ('fetch_size', '10000', 15), ('batch_size', '1000', 15), ('async_capable', 'true', 15),
                   ('parallel_commit', 'true', 15), ('parallel_abort', 'true', 16),
                   ('use_remote_estimate', 'false', 15),
                   -- A dead node is noticed within seconds, not after the kernel's two hours.
                   ('connect_timeout', '5', 15), ('keepalives_idle', '3', 15), ('keepalives_interval', '1', 15),
                   ('keepalives_count', '4', 15), ('tcp_user_timeout', '8000', 15))
           as o (option, value, since)
     where current_setting('server_version_num')::int / 10000 >= o.since
       and not node.options ? o.option
$$;
comment on function shardman.server_options(shardman.nodes) is
    'options of the foreign server of a node; a setting of the cluster of the same name overrides a default';

create or replace function shardman.has_server_options(server_options text[], node shardman.nodes) returns bool
language sql stable set search_path = pg_catalog as $$
    select not exists (
        (select option, value from shardman.server_options(node)
         except select option_name, option_value from pg_options_to_table(server_options))
        union all
        (select option_name, option_value from pg_options_to_table(server_options)
         except select option, value from shardman.server_options(node)))
$$;
comment on function shardman.has_server_options(text[], shardman.nodes) is 'whether a foreign server has the options that it should have';

create or replace function shardman.ensure_server(node shardman.nodes) returns bool
language plpgsql set search_path = pg_catalog as $$
declare
    server  constant name := shardman.node_server(node.id);
    options text[];
    changes text;
begin
    select srvoptions into options from pg_foreign_server where srvname = server;
    if not found then
        execute format('create server %I foreign data wrapper postgres_fdw options (%s)', server,
            (select string_agg(format('%I %L', o.option, o.value), ', ') from shardman.server_options(node) o));
        return true;
    elsif shardman.has_server_options(options, node) then
        return false;
    end if;
    select string_agg(case when n.option is null then format('drop %I', o.option_name)
                           when o.option_name is null then format('add %I %L', n.option, n.value)
                           else format('set %I %L', n.option, n.value) end, ', ')
      into changes
      from pg_options_to_table(options) o full join shardman.server_options(node) n on n.option = o.option_name
     where o.option_value is distinct from n.value;
    execute format('alter server %I options (%s)', server, changes);
    return true;
end
$$;
comment on function shardman.ensure_server(shardman.nodes) is 'makes the foreign server of a node what it should be; whether anything changed';

create or replace function shardman.mapped_roles() returns setof name
language sql stable set search_path = pg_catalog as $$
    select rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner where nspname = 'shardman'
    union
    select r.rolname
      from shardman.tables t
      join pg_class c on c.oid = shardman.find_relation(t.relation)
     cross join pg_roles r
     where r.rolcanlogin
       and (c.relowner = r.oid
            or exists (select from aclexplode(c.relacl) a
                        where a.grantee = 0 or pg_has_role(r.oid, a.grantee, 'usage')))
$$;
comment on function shardman.mapped_roles() is
    'the roles that need to reach other nodes: the owner of the schema, and all that may log in and have rights on a sharded table';

create or replace function shardman.mapping_options(node shardman.nodes, role name) returns table (option text, value text)
language sql stable set search_path = pg_catalog as $$
    select 'user', node.options ->> 'user' where node.options ? 'user'
    union all
    select 'password', s.password from shardman.node_secrets s where s.node_id = node.id
    union all
    -- Without a password only a superuser may decide that a role of lesser rights may go on.
    select 'password_required', 'false'
     where not (select rolsuper from pg_roles where rolname = role)
       and not exists (select from shardman.node_secrets s where s.node_id = node.id)
$$;
comment on function shardman.mapping_options(shardman.nodes, name) is 'options of the user mapping by which a role reaches a node';

create or replace function shardman.ensure_mapping(node shardman.nodes, role name) returns bool
language plpgsql set search_path = pg_catalog as $$
declare
    server  constant name := shardman.node_server(node.id);
    options text[];
    changes text;
begin
    select umoptions into options from pg_user_mappings where srvname = server and usename = role;
    if not found then
        execute format('create user mapping for %I server %I options (%s)', role, server,
            (select string_agg(format('%I %L', o.option, o.value), ', ') from shardman.mapping_options(node, role) o));
        return true;
    end if;
    select string_agg(case when n.option is null then format('drop %I', o.option_name)
                           when o.option_name is null then format('add %I %L', n.option, n.value)
                           else format('set %I %L', n.option, n.value) end, ', ')
      into changes
      from pg_options_to_table(options) o full join shardman.mapping_options(node, role) n on n.option = o.option_name
     where o.option_value is distinct from n.value;
    if changes is null then
        return false;
    end if;
    execute format('alter user mapping for %I server %I options (%s)', role, server, changes);
    return true;
end
$$;
comment on function shardman.ensure_mapping(shardman.nodes, name) is 'makes a user mapping what it should be; whether anything changed';

create or replace function shardman.ensure_lord_inbox() returns void
language plpgsql set search_path = pg_catalog as $$
begin
    if (select lord from shardman.local) or to_regclass('shardman.lord_inbox') is not null
       or not exists (select from pg_foreign_server where srvname = shardman.node_server(0)) then
        return;
    end if;
    execute format('create foreign table shardman.lord_inbox (id bigint, cmd_type text, opts text[], secret text,'
                   ' submitted_by text) server %I options (schema_name ''shardman'', table_name ''inbox'', batch_size ''1'')',
                   shardman.node_server(0));
    comment on foreign table shardman.lord_inbox is 'workers only: hands a command to the lord';
end
$$;
comment on function shardman.ensure_lord_inbox() is 'makes the foreign table through which a worker submits commands';

create or replace function shardman.reconcile_servers() returns void
language plpgsql set search_path = pg_catalog as $$
declare
    node  shardman.nodes;
    role  name;
    gone  name;
begin
    for node in
        select n.* from shardman.nodes n
         where n.id <> shardman.my_id()
           and (n.lord or n.worker_status <> 'removed' or exists (select from shardman.partitions p where p.owner = n.id))
           and n.options <> '{}'
    loop
        perform shardman.ensure_server(node);
        for role in select * from shardman.mapped_roles() loop
            perform shardman.ensure_mapping(node, role);
        end loop;
    end loop;
    perform shardman.ensure_lord_inbox();
    -- A server that a route still uses goes when its last route has gone.
    for gone in
        select s.srvname
          from shardman.nodes n join pg_foreign_server s on s.srvname = shardman.node_server(n.id)
         where n.worker_status = 'removed'
           and not exists (select from shardman.partitions p where p.owner = n.id)
           and not exists (select from pg_foreign_table f where f.ftserver = s.oid)
    loop
        execute format('drop server %I cascade', gone);
    end loop;
end
$$;
comment on function shardman.reconcile_servers() is 'makes foreign servers and user mappings match the metadata';

create or replace function shardman.hash_samples() returns jsonb
language sql stable set search_path = pg_catalog as $$
    select jsonb_object_agg(type, hash::text) from (values
        ('smallint', hash_record_extended(row(42::int2), 1)), ('integer', hash_record_extended(row(42::int4), 1)),
        ('bigint', hash_record_extended(row(-42::int8), 1)), ('oid', hash_record_extended(row(42::oid), 1)),
        ('text', hash_record_extended(row('Straße'::text), 1)), ('character', hash_record_extended(row('a  '::char(5)), 1)),
        ('name', hash_record_extended(row('Name'::name), 1)), ('"char"', hash_record_extended(row('x'::"char"), 1)),
        ('uuid', hash_record_extended(row('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid), 1)),
        ('date', hash_record_extended(row('2013-01-01'::date), 1)), ('time', hash_record_extended(row('12:34:56.789'::time), 1)),
        ('timetz', hash_record_extended(row('12:34:56+02'::timetz), 1)),
        ('timestamp', hash_record_extended(row('2013-01-01 12:34:56.789'::timestamp), 1)),
        ('timestamptz', hash_record_extended(row('2013-01-01 12:34:56+00'::timestamptz), 1)),
        ('interval', hash_record_extended(row('1 mon 2 days'::interval), 1)),
        ('numeric', hash_record_extended(row(12345.678::numeric), 1)), ('boolean', hash_record_extended(row(true), 1)),
        ('bytea', hash_record_extended(row('\xdeadbeef'::bytea), 1)), ('inet', hash_record_extended(row('10.1.2.3/8'::inet), 1)),
        ('macaddr', hash_record_extended(row('08:00:2b:01:02:03'::macaddr), 1)),
        ('macaddr8', hash_record_extended(row('08:00:2b:01:02:03:04:05'::macaddr8), 1)),
        ('real', hash_record_extended(row(1.5::float4), 1)), ('double precision', hash_record_extended(row(-2.25::float8), 1)),
        ('jsonb', hash_record_extended(row('{"a": [1, null]}'::jsonb), 1)),
        ('integer[]', hash_record_extended(row(array[1, 2, 3]), 1)), ('text[]', hash_record_extended(row(array['a', null]), 1))
    ) as sample (type, hash)
$$;
comment on function shardman.hash_samples() is 'hashes of samples of every type that a sharding key may have: they must be the same on all nodes';

create or replace function shardman.try_reach(options jsonb, password text) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    answer bool;
begin
    begin
        execute format('create server shardman_try foreign data wrapper postgres_fdw options (%s, connect_timeout ''5'')',
            (select string_agg(format('%I %L', key, value), ', ') from jsonb_each_text(options) where key <> 'user'));
        execute format('create user mapping for current_user server shardman_try options (user %L %s)',
            options ->> 'user', case when password is not null then format(', password %L', password) end);
        create foreign table shardman.try_table (oid oid) server shardman_try
            options (schema_name 'pg_catalog', table_name 'pg_database');
        select true into answer from shardman.try_table limit 1;
        raise exception 'reached' using errcode = 'SHM03';
    exception when sqlstate 'SHM03' then
        null;  -- Everything made here is undone with the block.
    end;
end
$$;
comment on function shardman.try_reach(jsonb, text) is 'raises when this node cannot reach a server by postgres_fdw; leaves nothing';

create or replace function shardman.drop_routes() returns int
language plpgsql set search_path = pg_catalog as $$
declare
    gone   name;
    number int := 0;
begin
    for gone in select srvname from pg_foreign_server where srvname ~ '^shardman_node_[0-9]+(_c[0-9]+)?$' loop
        execute format('drop server %I cascade', gone);
        number := number + 1;
    end loop;
    return number;
end
$$;
comment on function shardman.drop_routes() is 'drops the foreign servers of a cluster with all routes on them; returns how many servers';
