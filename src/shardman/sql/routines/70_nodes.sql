-- How a node reaches the others: foreign servers, user mappings, and the lord's inbox. shardman.server_changes says what
-- differs from the metadata, as statements; shardman.mend_servers executes them one by one.

create or replace function shardman.wanted_server(node shardman.nodes) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when node.worker_status = 'removed'
                -- Its rows belong to nobody any more, whether its server runs or not. A statement that needs them fails at
                -- once, with a reason, and writes nowhere.
                then jsonb_build_object('host', format('/node %s was removed from the cluster', node.id))
                else (select jsonb_object_agg(o.option, shardman.setting(o.option, o.value))
                        from (values ('fetch_size', '10000', 15), ('batch_size', '1000', 15), ('async_capable', 'true', 15),
                                     ('parallel_commit', 'true', 15), ('parallel_abort', 'true', 16),
                                     ('use_remote_estimate', 'false', 15),
                                     -- A dead node is noticed before others take over from it, not after the kernel's two hours:
                                     -- whoever waits for it holds what they need. Before 17 nothing else ends a session that is
                                     -- connecting to a server that hangs.
                                     ('connect_timeout', case when current_setting('server_version_num')::int < 170000 then '3'
                                                              else '5' end, 15),
                                     ('keepalives_idle', '2', 15), ('keepalives_interval', '1', 15),
                                     ('keepalives_count', '3', 15), ('tcp_user_timeout', '5000', 15),
                                     -- Whose it is: by it the shardlord finds deadlocks over nodes.
                                     ('application_name', format('postgres_fdw from %s %%c', shardman.my_id()), 15),
                                     -- What ends a statement or a session where it was begun ends it here. The timeouts of this
                                     -- database and role would end also what the sender has allowed itself. lock_timeout stays.
                                     ('options', '-c statement_timeout=0 -c idle_in_transaction_session_timeout=0'
                                                 ' -c idle_session_timeout=0 -c default_transaction_read_only=off'
                                                 ' -c array_nulls=on', 15))
                             as o (option, value, since)
                       where current_setting('server_version_num')::int / 10000 >= o.since)
                     || (node.options - 'user') end
$$;
comment on function shardman.wanted_server(shardman.nodes) is
    'options of the foreign server of a node; a setting of the cluster of the same name overrides a default';

create or replace function shardman.is_unlimited() returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.rolsuper from pg_roles r where r.oid = (select nspowner from pg_namespace where nspname = 'shardman')
$$;
comment on function shardman.is_unlimited() is 'whether the nodes'' role is a superuser on this server';

create or replace function shardman.wanted_mapping(node shardman.nodes, role name) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_strip_nulls(case
        when shardman.is_ordinary(r.oid) then jsonb_build_object(
            'user', shardman.road_login(role),
            'password', shardman.road_password(shardman.road_login(role)),
            -- Otherwise it could go on only where the other server insists on a password; a superuser's alone to say. It
            -- cannot change its mapping, nor see it: it has no right to use the server by itself.
            'password_required', case when shardman.is_unlimited() then 'false' end)
        else jsonb_build_object(
            'user', node.options ->> 'user',
            'password', (select s.password from shardman.node_secrets s where s.node_id = node.id),
            'password_required', case when not r.rolsuper and shardman.is_unlimited() then 'false' end) end)
      from pg_roles r where r.rolname = role
$$;
comment on function shardman.wanted_mapping(shardman.nodes, name) is
    'options of the user mapping by which a role reaches a node: its road login; for superusers and the nodes'' role the nodes'' role';

create or replace function shardman.options_change(current text[], wanted jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select string_agg(case when w.key is null then format('drop %I', c.option_name)
                           when c.option_name is null then format('%I %L', w.key, w.value)
                           else format('set %I %L', w.key, w.value) end, ', ' order by coalesce(w.key, c.option_name))
      from pg_options_to_table(current) c full join jsonb_each_text(wanted) w on w.key = c.option_name
     where c.option_value is distinct from w.value
$$;
comment on function shardman.options_change(text[], jsonb) is
    'what stands in OPTIONS (…) to make an object''s options the wanted ones; null when they are';

create or replace function shardman.lacks_tables() returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.tables t where shardman.find_relation(t.relation) is null)
$$;
comment on function shardman.lacks_tables() is
    'whether a sharded table is not here by the name that the metadata have, as for a moment while it gets another: who may use it cannot be said, so nobody''s way '
    'to other nodes is taken away';

create or replace function shardman.mapped_roles() returns setof name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.rolname
      from pg_roles r
     where r.rolname !~ '^pg_'
       and shardman.road_cluster(r.oid) is null
       and (r.rolsuper and r.rolcanlogin
            or r.oid = (select nspowner from pg_namespace where nspname = 'shardman')
            or exists (
                select from shardman.tables t
                  join pg_class c on c.oid = shardman.find_relation(t.relation)
                 where pg_has_role(r.oid, c.relowner, 'usage')
                    or has_table_privilege(r.oid, c.oid, 'select, insert, update, delete, truncate')
                    or has_any_column_privilege(r.oid, c.oid, 'select, insert, update'))
            or r.oid in (select o from shardman.shared_owners() o)
            or r.rolname in (select unnest(e.roles) from shardman.expected_users e))
$$;
comment on function shardman.mapped_roles() is
    'the roles that need to reach other nodes: the owner of the schema, superusers, all that have rights on a sharded table, the owners '
    'of shared ones, and those who soon will be such';

create or replace function shardman.users_of(relation text) returns name[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(r.rolname), '{}')
      from pg_roles r join pg_class c on c.oid = shardman.find_relation(relation)
     where r.rolname !~ '^pg_' and shardman.is_ordinary(r.oid)
       and (pg_has_role(r.oid, c.relowner, 'usage')
            or has_table_privilege(r.oid, c.oid, 'select, insert, update, delete, truncate')
            or has_any_column_privilege(r.oid, c.oid, 'select, insert, update'))
$$;
comment on function shardman.users_of(text) is 'the ordinary roles that may use a table of this node';

create or replace function shardman.expect_users(relation text, roles name[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.expected_users e where e.relation = expect_users.relation and roles is null;
    insert into shardman.expected_users (relation, roles) select expect_users.relation, expect_users.roles where expect_users.roles is not null
        on conflict on constraint expected_users_pkey do update set roles = excluded.roles;
$$;
comment on function shardman.expect_users(text, name[]) is 'who will use a table that is not sharded or shared yet; null: nobody any more';

create or replace function shardman.forget_users() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.expected_users e
     where e.relation in (select t.relation from shardman.tables t union all select s.relation from shardman.shared_tables s)
       and shardman.find_relation(e.relation) is not null
$$;
comment on function shardman.forget_users() is 'whose table is there is not expected any more';

create or replace function shardman.reachable_nodes() returns setof shardman.nodes
language sql stable set search_path = pg_catalog, pg_temp as $$
    select n.* from shardman.nodes n
     where n.id <> shardman.my_id() and n.options <> '{}'
       and (n.lord or n.worker_status <> 'removed' or exists (select from shardman.partitions p where p.owner = n.id))
$$;
comment on function shardman.reachable_nodes() is
    'the nodes that this one has a foreign server for: all but those that were removed and hold nothing';

create or replace function shardman.sees_mapping(role oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.rolsuper or r.oid = role from pg_roles r where r.rolname = current_user
$$;
comment on function shardman.sees_mapping(oid) is 'whether this session''s role may look at the user mappings of a role';

create or replace function shardman.mapping_proof(options jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select encode(sha256(convert_to(s.secret || options::text, 'UTF8')), 'hex') from shardman.road_secret s
$$;
comment on function shardman.mapping_proof(jsonb) is 'what shardman.mapping_proofs says of a mapping with these options; null without the secret';

create or replace function shardman.renew_mapping(role name, server name, node_id int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    wanted constant jsonb := (select shardman.wanted_mapping(n, role) from shardman.nodes n where n.id = node_id);
begin
    execute format('drop user mapping if exists for %I server %I', role, server);
    execute format('create user mapping for %I server %I options (%s)', role, server, coalesce(shardman.options_change(null, wanted), ''));
    insert into shardman.mapping_proofs (mapping, proof)
    select m.umid, shardman.mapping_proof(wanted) from pg_user_mappings m
     where m.srvname = server and m.usename = role and shardman.mapping_proof(wanted) is not null;
    delete from shardman.mapping_proofs p where p.mapping not in (select m.umid from pg_user_mappings m);
end
$$;
comment on function shardman.renew_mapping(name, name, int) is
    'makes the user mapping anew by which a role reaches a node, and remembers with what: for a role that may not look at it';

create or replace function shardman.server_changes() returns table (subject text, statement text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    with wanted as materialized (
        select n as node, shardman.node_server(n.id) as server, shardman.wanted_server(n) as options
          from shardman.reachable_nodes() n
    ), servers as (
        select 'server ' || w.server,
               case when s.oid is null then format('select shardman.make_server(%L, %L)', w.server, c.change)
                    when not shardman.is_ours(s.srvowner) then format('select shardman.need_our_server(%L)', w.server)
                    else format('alter server %I options (%s)', w.server, c.change) end
          from wanted w
          left join pg_foreign_server s on s.srvname = w.server
         cross join shardman.options_change(s.srvoptions, w.options) as c (change)
         where c.change is not null or not shardman.is_ours(s.srvowner)
    ), used as (
        -- Nobody's password goes to a stranger's.
        select w.node, w.server::name from wanted w
         where not exists (select from pg_foreign_server s where s.srvname = w.server and not shardman.is_ours(s.srvowner))
        union all
        -- Those of moves, until their routes are exchanged.
        select w.node, s.srvname from wanted w join pg_foreign_server s on s.srvname ~ ('^' || w.server || '_c[0-9]+$')
    ), roles as materialized (
        select r.oid, r.rolname, shardman.is_ordinary(r.oid) as ordinary, shardman.sees_mapping(r.oid) as seen
          from shardman.mapped_roles() as m (role) join pg_roles r on r.rolname = m.role
    ), mappings as (
        select format('user mapping of %s for %s', r.rolname, u.server),
               case when not r.seen then format('select shardman.renew_mapping(%L, %L, %s)', r.rolname, u.server, (u.node).id)
                    else format(case when m.umid is null then 'create user mapping for %I server %I options (%s)'
                                     else 'alter user mapping for %I server %I options (%s)' end, r.rolname, u.server, coalesce(c.change, '')) end
          from used u
         cross join roles r
          left join pg_user_mappings m on m.srvname = u.server and m.umuser = r.oid
         cross join lateral (select shardman.wanted_mapping(u.node, r.rolname) offset 0) as w (options)
         cross join lateral (select case when r.seen then shardman.options_change(m.umoptions, w.options)
                                         -- Without the secret nothing is known of it.
                                         else (select 'unproven' where shardman.mapping_proof(w.options) <> coalesce(
                                                   (select p.proof from shardman.mapping_proofs p where p.mapping = m.umid), '')) end) as c (change)
         where (c.change is not null or m.umid is null)
           -- A node that has no road logins yet is reached as before.
           and (not r.ordinary
                or exists (select from shardman.road_secret)
                   and (m.umid is null or (u.node).roads or (u.node).worker_status is not distinct from 'removed'))
    ), lost as (
        select format('user mapping of %s for %s', m.usename, m.srvname),
               format('drop user mapping for %I server %I', m.usename, m.srvname)
          from used u join pg_user_mappings m on m.srvname = u.server
         where m.umuser <> 0 and m.umuser not in (select r.oid from roles r) and not shardman.lacks_tables()
    ), gone as (
        select 'server ' || s.srvname, format('select shardman.drop_server(%L, with_tables => true)', s.srvname)
          from shardman.nodes n join pg_foreign_server s on s.srvname = shardman.node_server(n.id)
         where n.worker_status = 'removed'
           and not exists (select from shardman.partitions p where p.owner = n.id)
           -- A route that waits for its exchange still leads there, and is forwarded.
           and not exists (select from pg_foreign_table f where f.ftserver = s.oid)
    )
    select * from servers union all select * from mappings union all select * from lost union all select * from gone
    union all
    select 'server ' || name, format('select shardman.leave_out_server(%L)', name) from shardman.servers_in_dumps() as d (name)
    union all
    select 'secrets', 'select shardman.leave_out_secrets()'
     where shardman.has_stand_ins() and not exists (select from pg_foreign_server s where s.srvname = shardman.stand_in_for('secrets'))
$$;
comment on function shardman.server_changes() is
    'the statements that make foreign servers and user mappings match the metadata and the rights that roles have';

create or replace function shardman.ensure_lord_inbox() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    wanted constant name := (select s.srvname from shardman.nodes n join pg_foreign_server s on s.srvname = shardman.node_server(n.id)
                              where n.lord);
begin
    if (select lord from shardman.local) or wanted is null
       or exists (select from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver
                     join pg_attribute a on a.attrelid = f.ftrelid and a.attname = 'options' and not a.attisdropped
                   where f.ftrelid = to_regclass('shardman.lord_inbox') and s.srvname = wanted) then
        return;
    end if;
    -- It led to a former lord, or is of version 0.1, which submitted arguments without their names.
    drop foreign table if exists shardman.lord_inbox;
    execute format('create foreign table shardman.lord_inbox (id bigint, cmd_type text, secret text,'
                   ' submitted_by text, options json) server %I options (schema_name ''shardman'', table_name ''inbox'', batch_size ''1'')', wanted);
    comment on foreign table shardman.lord_inbox is 'workers only: hands a command to the lord';
end
$$;
comment on function shardman.ensure_lord_inbox() is 'makes the foreign table through which a worker submits commands';

-- With the functions that write to it: a call on a worker that is being upgraded meets the old ones and the old table, or
-- the new ones and the new table.
do $$
begin
    if to_regclass('shardman.lord_inbox') is not null then
        perform shardman.ensure_lord_inbox();
    end if;
end
$$;

create or replace function shardman.mend_nodes() returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    change   record;
    failures text[] := '{}';
begin
    failures := shardman.mend_roads();
    for again in 1 .. 2 loop
        -- Mappings are looked at when their servers are there.
        for change in select * from shardman.server_changes() order by subject !~ '^server' loop
            begin
                execute change.statement;
            exception when others then
                failures := failures || format('%s: %s', change.subject, sqlerrm);
            end;
        end loop;
        begin
            exit when not shardman.mend_shared_doors();
        exception when others then
            failures := failures || format('doors of shared tables: %s', sqlerrm);
            exit;
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
    'makes road logins, foreign servers and user mappings match the metadata and the rights of roles; what one of them makes '
    'impossible does not keep the others; returns what failed';

create or replace function shardman.drop_routes() returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    gone   name;
    number int := 0;
begin
    for gone in select srvname from pg_foreign_server where srvname ~ '^shardman_(node_[0-9]+(_c[0-9]+)?|missing)$' loop
        perform shardman.drop_server(gone, with_tables => true);
        number := number + 1;
    end loop;
    return number;
end
$$;
comment on function shardman.drop_routes() is 'drops the foreign servers of a cluster with all routes on them; returns how many servers';
