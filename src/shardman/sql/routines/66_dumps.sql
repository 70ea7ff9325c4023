-- What pg_dump of a node leaves out, so that whoever restores it elsewhere has no way into the cluster and no password of
-- it: members of extensions are left out. What stands in for them is dumped, so that the restore meets no error.

create or replace function shardman.stand_in(options text[], catalog oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    o record;
begin
    if catalog <> 'pg_foreign_server'::regclass then
        return;
    end if;
    for o in select option_name as name, option_value as value from pg_options_to_table(options) loop
        begin
            if o.name = 'server' and not exists (select from pg_foreign_server where srvname = o.value) then
                execute format('create server %I foreign data wrapper shardman_other_node', o.value);
                execute format('comment on server %I is %L', o.value, 'leads nowhere: this database is a copy of a node');
            elsif o.name = 'secrets' and to_regclass('shardman.node_secrets') is null then
                -- The schema that follows has rights of theirs; shardman.ensure_role knows them as ours by their comments.
                if not exists (select from pg_roles where rolname = 'shardman_viewer') then
                    create role shardman_viewer nologin;
                    comment on role shardman_viewer is 'pg_shardman: of a dump';
                end if;
                if not exists (select from pg_roles where rolname = 'shardman_operator') then
                    create role shardman_operator nologin;
                    comment on role shardman_operator is 'pg_shardman: of a dump';
                end if;
                create table shardman.node_secrets (node_id int primary key, password text not null);
                create table shardman.cmd_secrets (cmd_id bigint primary key, connstring text not null);
                create table shardman.road_secret (only_row bool primary key default true check (only_row), secret text not null);
                revoke all on shardman.node_secrets, shardman.cmd_secrets, shardman.road_secret from public;
                -- As in the original: a dump of the copy has the same stand-in.
                alter extension tsm_system_rows add table shardman.node_secrets;
                alter extension tsm_system_rows add table shardman.cmd_secrets;
                alter extension tsm_system_rows add table shardman.road_secret;
            end if;
        exception when others then
            -- pg_upgrade restores the originals as well; nothing is to stand in for them.
            raise warning 'shardman: %', sqlerrm;
        end;
    end loop;
end
$$;
comment on function shardman.stand_in(text[], oid) is
    'validator of the foreign data wrapper shardman_other_node. Where a dump of this database is restored, it is called before any '
    'table is made, and makes what the dump leaves out: servers that lead nowhere, and empty tables of secrets';

create or replace function shardman.stand_in_for(name text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select 'shardman_stand_in_for_' || name
$$;
comment on function shardman.stand_in_for(text) is 'the server that stands for another one, or for the secrets, in a dump';

create or replace function shardman.container(catalog regclass) returns text
language sql stable strict set search_path = pg_catalog, pg_temp as $$
    -- A table of ours in postgres_fdw would take that extension along, when somebody drops the schema with CASCADE, and all
    -- foreign tables of the user's with it. The other one is only there to contain them. It has to do for servers too where the
    -- cluster's role is no superuser, for that cannot have made postgres_fdw.
    select extname from pg_extension
     where (extname = 'tsm_system_rows' or catalog = 'pg_foreign_server'::regclass and extname = 'postgres_fdw')
       and pg_has_role(extowner, 'usage')
     order by extname limit 1
$$;
comment on function shardman.container(regclass) is
    'the extension whose members our servers, or our tables of secrets, are; null where this role does not own it';

create or replace function shardman.contained_in(catalog regclass, object oid) returns name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select e.extname from pg_depend d join pg_extension e on e.oid = d.refobjid
     where d.classid = catalog and d.objid = object and d.deptype = 'e'
$$;
comment on function shardman.contained_in(regclass, oid) is 'the extension that a server or a table is a member of; null when of none';

create or replace function shardman.left_out(catalog regclass, object oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.contained_in(catalog, object) is not null
$$;
comment on function shardman.left_out(regclass, oid) is 'whether pg_dump leaves a server or a table out, with all that belongs to it';

create or replace function shardman.has_stand_ins() returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(bool_or(has_foreign_data_wrapper_privilege(oid, 'usage')), false) from pg_foreign_data_wrapper where fdwname = 'shardman_other_node'
$$;
comment on function shardman.has_stand_ins() is 'whether this role may make what stands in for others where a dump is restored';

create or replace function shardman.leave_out_server(server text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.has_stand_ins() and not exists (select from pg_foreign_server where srvname = shardman.stand_in_for(server)) then
        execute format('create server %I foreign data wrapper shardman_other_node options (server %L)', shardman.stand_in_for(server), server);
    end if;
    if not (select shardman.left_out('pg_foreign_server', oid) from pg_foreign_server where srvname = server) then
        execute format('alter extension %I add server %I', shardman.container('pg_foreign_server'), server);
    end if;
end
$$;
comment on function shardman.leave_out_server(text) is 'lets pg_dump leave a server and its user mappings out; safe to repeat';

create or replace function shardman.servers_in_dumps() returns setof name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select s.srvname from pg_foreign_server s
     where s.srvname ~ '^shardman_(node_[0-9]+(_c[0-9]+)?|missing)$'
       and (not shardman.left_out('pg_foreign_server', s.oid)
            or shardman.has_stand_ins() and not exists (select from pg_foreign_server x where x.srvname = shardman.stand_in_for(s.srvname)))
       and shardman.container('pg_foreign_server') is not null and shardman.is_ours(s.srvowner) and pg_has_role(s.srvowner, 'usage')
$$;
comment on function shardman.servers_in_dumps() is 'servers of ours that pg_dump does not leave out yet, and could';

create or replace function shardman.make_server(server text, options text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('create server %I foreign data wrapper postgres_fdw options (%s)', server, options);
    if shardman.container('pg_foreign_server') is not null then
        perform shardman.leave_out_server(server);
    end if;
end
$$;
comment on function shardman.make_server(text, text) is 'a foreign server that no dump contains; options: as they stand in OPTIONS (…)';

create or replace function shardman.drop_server(server text, with_tables bool default false) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    holder name;
begin
    if not exists (select from pg_foreign_server where srvname = server) then
        return;
    end if;
    select shardman.contained_in('pg_foreign_server', oid) into holder from pg_foreign_server where srvname = server;
    if holder is not null then
        execute format('alter extension %I drop server %I', holder, server);
    end if;
    execute format('drop server %I %s', server, case when with_tables then 'cascade' else '' end);
    execute format('drop server if exists %I', shardman.stand_in_for(server));
end
$$;
comment on function shardman.drop_server(text, bool) is
    'drops a foreign server of ours, with the foreign tables on it if wanted; does nothing where there is none';

create or replace function shardman.leave_out_secrets() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab regclass;
begin
    if shardman.container('pg_class') is null then
        return;
    end if;
    foreach tab in array array['shardman.node_secrets', 'shardman.cmd_secrets', 'shardman.road_secret']::regclass[] loop
        if not shardman.left_out('pg_class', tab) then
            execute format('alter extension %I add table %s', shardman.container('pg_class'), tab);
        end if;
    end loop;
    if shardman.has_stand_ins() and not exists (select from pg_foreign_server where srvname = shardman.stand_in_for('secrets')) then
        execute format('create server %I foreign data wrapper shardman_other_node options (secrets %L)', shardman.stand_in_for('secrets'), 'true');
    end if;
end
$$;
comment on function shardman.leave_out_secrets() is 'lets pg_dump leave out the tables with passwords; safe to repeat';

create or replace function shardman.take_secrets_back() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    member record;
begin
    for member in
        select d.objid::regclass as tab, e.extname from pg_depend d join pg_extension e on e.oid = d.refobjid
         where d.classid = 'pg_class'::regclass and d.deptype = 'e'
           and d.objid in ('shardman.node_secrets'::regclass, 'shardman.cmd_secrets'::regclass, 'shardman.road_secret'::regclass)
    loop
        execute format('alter extension %I drop table %s', member.extname, member.tab);
    end loop;
    -- Those that are with them would go with the schema, and all routes on them.
    for member in
        select s.srvname, e.extname from pg_foreign_server s join pg_extension e on e.extname = shardman.contained_in('pg_foreign_server', s.oid)
         where e.extname = 'tsm_system_rows'
    loop
        execute format('alter extension %I drop server %I', member.extname, member.srvname);
    end loop;
end
$$;
comment on function shardman.take_secrets_back() is 'takes back shardman.leave_out_secrets, before the schema is dropped, and what else would go with it';

create or replace function shardman.disarm() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s    record;
    role name;
begin
    for s in select oid, srvname, srvoptions from pg_foreign_server
              where srvname ~ '^shardman_node_[0-9]+(_c[0-9]+)?$'
                and srvfdw = (select oid from pg_foreign_data_wrapper where fdwname = 'postgres_fdw') loop
        for role in select usename from pg_user_mappings where srvid = s.oid loop
            execute format('drop user mapping if exists for %s server %I', case when role = 'public' then 'public' else quote_ident(role) end, s.srvname);
        end loop;
        if s.srvoptions is distinct from array['host=/this database is a copy'] then
            execute format('alter server %I options (%s)', s.srvname,
                           shardman.options_change(s.srvoptions, '{"host": "/this database is a copy"}'));
        end if;
        -- Without a mapping it would be that which whoever asks is told of.
        execute format('create user mapping for public server %I options (user ''nobody'', password ''none'')', s.srvname);
    end loop;
    delete from shardman.node_secrets;
    delete from shardman.cmd_secrets;
    perform shardman.drop_roads();
    perform shardman.drop_all_shared_triggers();
    delete from shardman.road_secret;
    update shardman.local set cluster = null, node_id = null, lord = false;
end
$$;
comment on function shardman.disarm() is
    'on a copy of a node: its servers lead nowhere, its passwords are gone, and it belongs to no cluster. Its rows stay; '
    'shardman disarm ends its subscriptions before';
revoke all on function shardman.disarm() from public;

do $$
declare
    server name;
begin
    -- A foreign data wrapper is a superuser's. Without it nothing stands in for what a dump leaves out.
    if (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
       and not exists (select from pg_catalog.pg_foreign_data_wrapper where fdwname = 'shardman_other_node') then
        create foreign data wrapper shardman_other_node validator shardman.stand_in;
        comment on foreign data wrapper shardman_other_node is
            'pg_shardman: stands for other nodes where a dump of this one is restored. Nothing can be read through it';
    end if;
    if not exists (select from pg_catalog.pg_extension where extname = 'tsm_system_rows') then
        create extension tsm_system_rows schema shardman;
    end if;
    perform shardman.leave_out_secrets();
    for server in select * from shardman.servers_in_dumps() loop
        perform shardman.leave_out_server(server);
    end loop;
end
$$;
