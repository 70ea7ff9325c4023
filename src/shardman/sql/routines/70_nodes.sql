-- How a node reaches the others: foreign servers, user mappings, and the lord's inbox. shardman.server_changes says what
-- differs from the metadata, as statements; shardman.mend_servers executes them one by one.

create or replace function shardman.wanted_server(node shardman.nodes) returns jsonb
language sql stable set search_path = pg_catalog as $$
    select case when node.worker_status = 'removed'
                -- Its rows belong to nobody any more, whether its server runs or not. A statement that needs them fails at
                -- once, with a reason, and writes nowhere.
                then jsonb_build_object('host', format('/node %s was removed from the cluster', node.id))
                else (select jsonb_object_agg(o.option, shardman.setting(o.option, o.value))
                        from (values ('fetch_size', '10000', 15), ('batch_size', '1000', 15), ('async_capable', 'true', 15),
                                     ('parallel_commit', 'true', 15), ('parallel_abort', 'true', 16),
                                     ('use_remote_estimate', 'false', 15),
                                     -- A dead node is noticed before others take over from it, not after the kernel's two hours:
                                     -- whoever waits for it holds what they need.
                                     ('connect_timeout', '5', 15), ('keepalives_idle', '2', 15), ('keepalives_interval', '1', 15),
                                     ('keepalives_count', '3', 15), ('tcp_user_timeout', '5000', 15))
                             as o (option, value, since)
                       where current_setting('server_version_num')::int / 10000 >= o.since)
                     || (node.options - 'user') end
$$;
comment on function shardman.wanted_server(shardman.nodes) is
    'options of the foreign server of a node; a setting of the cluster of the same name overrides a default';

create or replace function shardman.wanted_mapping(node shardman.nodes, role name) returns jsonb
language sql stable set search_path = pg_catalog as $$
    select jsonb_strip_nulls(jsonb_build_object(
        'user', node.options ->> 'user',
        'password', (select s.password from shardman.node_secrets s where s.node_id = node.id),
        -- Otherwise a role of lesser rights could go on only where the other server insists on a password. It cannot
        -- change its mapping: it has no right to use the server by itself.
        'password_required', case when not (select rolsuper from pg_roles where rolname = role) then 'false' end))
$$;
comment on function shardman.wanted_mapping(shardman.nodes, name) is 'options of the user mapping by which a role reaches a node';

create or replace function shardman.options_change(current text[], wanted jsonb) returns text
language sql stable set search_path = pg_catalog as $$
    select string_agg(case when w.key is null then format('drop %I', c.option_name)
                           when c.option_name is null then format('%I %L', w.key, w.value)
                           else format('set %I %L', w.key, w.value) end, ', ' order by coalesce(w.key, c.option_name))
      from pg_options_to_table(current) c full join jsonb_each_text(wanted) w on w.key = c.option_name
     where c.option_value is distinct from w.value
$$;
comment on function shardman.options_change(text[], jsonb) is
    'what stands in OPTIONS (…) to make an object''s options the wanted ones; null when they are';

create or replace function shardman.mapped_roles() returns setof name
language sql stable set search_path = pg_catalog as $$
    select r.rolname
      from pg_roles r
     where r.rolname !~ '^pg_'
       and (r.rolsuper and r.rolcanlogin
            or r.oid = (select nspowner from pg_namespace where nspname = 'shardman')
            or exists (
                select from shardman.tables t
                  join pg_class c on c.oid = shardman.find_relation(t.relation)
                 where pg_has_role(r.oid, c.relowner, 'usage')
                    or has_table_privilege(r.oid, c.oid, 'select, insert, update, delete, truncate')
                    or has_any_column_privilege(r.oid, c.oid, 'select, insert, update')))
$$;
comment on function shardman.mapped_roles() is
    'the roles that need to reach other nodes: the owner of the schema, superusers, and all that have rights on a sharded table';

create or replace function shardman.reachable_nodes() returns setof shardman.nodes
language sql stable set search_path = pg_catalog as $$
    select n.* from shardman.nodes n
     where n.id <> shardman.my_id() and n.options <> '{}'
       and (n.lord or n.worker_status <> 'removed' or exists (select from shardman.partitions p where p.owner = n.id))
$$;
comment on function shardman.reachable_nodes() is
    'the nodes that this one has a foreign server for: all but those that were removed and hold nothing';

create or replace function shardman.server_changes() returns table (subject text, statement text)
language sql stable set search_path = pg_catalog as $$
    with wanted as materialized (
        select n as node, shardman.node_server(n.id) as server, shardman.wanted_server(n) as options
          from shardman.reachable_nodes() n
    ), servers as (
        select 'server ' || w.server,
               case when s.oid is null then format('create server %I foreign data wrapper postgres_fdw options (%s)', w.server, c.change)
                    else format('alter server %I options (%s)', w.server, c.change) end
          from wanted w
          left join pg_foreign_server s on s.srvname = w.server
         cross join shardman.options_change(s.srvoptions, w.options) as c (change)
         where c.change is not null
    ), mappings as (
        select format('user mapping of %s for %s', r.role, w.server),
               format(case when m.umid is null then 'create user mapping for %I server %I options (%s)'
                           else 'alter user mapping for %I server %I options (%s)' end, r.role, w.server, coalesce(c.change, ''))
          from wanted w
         cross join shardman.mapped_roles() as r (role)
          left join pg_user_mappings m on m.srvname = w.server and m.usename = r.role
         cross join lateral (select shardman.options_change(m.umoptions, shardman.wanted_mapping(w.node, r.role))) as c (change)
         where c.change is not null or m.umid is null
    ), gone as (
        select 'server ' || s.srvname, format('drop server %I cascade', s.srvname)
          from shardman.nodes n join pg_foreign_server s on s.srvname = shardman.node_server(n.id)
         where n.worker_status = 'removed'
           and not exists (select from shardman.partitions p where p.owner = n.id)
           -- A route that waits for its exchange still leads there, and is forwarded.
           and not exists (select from pg_foreign_table f where f.ftserver = s.oid)
    )
    select * from servers union all select * from mappings union all select * from gone
$$;
comment on function shardman.server_changes() is 'the statements that make foreign servers and user mappings match the metadata';

create or replace function shardman.ensure_lord_inbox() returns void
language plpgsql set search_path = pg_catalog as $$
declare
    wanted constant name := (select s.srvname from shardman.nodes n join pg_foreign_server s on s.srvname = shardman.node_server(n.id)
                              where n.lord);
begin
    if (select lord from shardman.local) or wanted is null
       or exists (select from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver
                   where f.ftrelid = to_regclass('shardman.lord_inbox') and s.srvname = wanted) then
        return;
    end if;
    -- It led to a former lord.
    drop foreign table if exists shardman.lord_inbox;
    execute format('create foreign table shardman.lord_inbox (id bigint, cmd_type text, opts text[], secret text,'
                   ' submitted_by text) server %I options (schema_name ''shardman'', table_name ''inbox'', batch_size ''1'')', wanted);
    comment on foreign table shardman.lord_inbox is 'workers only: hands a command to the lord';
end
$$;
comment on function shardman.ensure_lord_inbox() is 'makes the foreign table through which a worker submits commands';

create or replace function shardman.mend_nodes() returns text[]
language plpgsql set search_path = pg_catalog as $$
declare
    change   record;
    failures text[] := '{}';
begin
    -- Mappings are looked at when their servers are there.
    for change in select * from shardman.server_changes() order by subject !~ '^server' loop
        begin
            execute change.statement;
        exception when others then
            failures := failures || format('%s: %s', change.subject, sqlerrm);
        end;
    end loop;
    begin
        perform shardman.ensure_lord_inbox();
    exception when others then
        failures := failures || format('lord_inbox: %s', sqlerrm);
    end;
    return failures;
end
$$;
comment on function shardman.mend_nodes() is
    'makes foreign servers and user mappings match the metadata; what one of them makes impossible does not keep the others; '
    'returns what failed';

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
