-- Roles belong to servers, and sharded tables to all of them. shardman.sync_roles makes the roles of one server known to the others.

create or replace function shardman.is_mighty(role oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Whoever can become a superuser is one, and who reads, writes or runs files of the server can.
    select exists (select from pg_roles s
                    where (not shardman.is_ordinary(s.oid) or s.rolname in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))
                      and pg_has_role(role, s.oid, 'member'))
$$;
comment on function shardman.is_mighty(oid) is 'whether a role of this server is a superuser or the cluster''s, or can become one';

create or replace function shardman.may_be_synced(role oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.rolname !~ '^(pg|shardman)_' and not shardman.is_mighty(r.oid) from pg_roles r where r.oid = role
$$;
comment on function shardman.may_be_synced(oid) is 'whether a role is one of the user''s, and neither a superuser nor a way to one';

create or replace function shardman.role_settings(role oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('here', s.setdatabase <> 0, 'name', split_part(c, '=', 1), 'value', substr(c, strpos(c, '=') + 1))
                              order by s.setdatabase <> 0, c), '[]')
      from pg_db_role_setting s cross join unnest(s.setconfig) as c
     where s.setrole = role and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
$$;
comment on function shardman.role_settings(oid) is 'the settings of a role; here: in this database only';

create or replace function shardman.role_groups(role oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- The options of 16 and later; several grantors may each have given it.
    select coalesce(jsonb_object_agg(g.rolname, g.options), '{}')
      from (select p.rolname, jsonb_build_object('admin', bool_or(m.admin_option),
                                                 'inherit', bool_or((to_jsonb(m) ->> 'inherit_option')::bool), 'set', bool_or((to_jsonb(m) ->> 'set_option')::bool)) as options
              from pg_auth_members m join pg_roles p on p.oid = m.roleid where m.member = role and not p.rolsuper group by 1) as g
$$;
comment on function shardman.role_groups(oid) is 'the roles of which a role is a member, and how';

create or replace function shardman.role_text(role oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object(
               'name', r.rolname,
               'attributes', jsonb_build_object(
                   case when r.rolcanlogin then 'login' else 'nologin' end, 1, case when r.rolinherit then 'inherit' else 'noinherit' end, 1,
                   case when r.rolcreatedb then 'createdb' else 'nocreatedb' end, 1, case when r.rolcreaterole then 'createrole' else 'nocreaterole' end, 1,
                   case when r.rolreplication then 'replication' else 'noreplication' end, 1, case when r.rolbypassrls then 'bypassrls' else 'nobypassrls' end, 1,
                   'connection limit ' || r.rolconnlimit, 1,
                   format('valid until %L', coalesce(to_char(nullif(r.rolvaliduntil, 'infinity') at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00'), 'infinity')), 1),
               'password', shardman.stored_password(r.rolname),
               'settings', shardman.role_settings(r.oid),
               'groups', shardman.role_groups(r.oid))
      from pg_roles r where r.oid = role
$$;
comment on function shardman.role_text(oid) is 'what a role is on this server; attributes: as the keys, in the words of ALTER ROLE';

create or replace function shardman.sync_obstacle(role text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((select case when shardman.may_be_synced(r.oid) then '' else format('%I is a superuser''s role, the cluster''s, or PostgreSQL''s own', role) end
                       from pg_roles r where r.rolname = role),
                    case when role is null then '' else format('there is no role %I', role) end)
$$;
comment on function shardman.sync_obstacle(text) is 'why a role of this server is not given to others; nothing when it may be';

create or replace function shardman.roles_here(role text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive used (oid) as (
        select r.oid from pg_roles r where r.rolname = role or role is null and r.rolname in (select shardman.mapped_roles())
        union
        select m.roleid from used u join pg_auth_members m on m.member = u.oid
    )
    select coalesce(jsonb_agg(shardman.role_text(u.oid) order by u.oid), '[]') from used u where shardman.may_be_synced(u.oid)
$$;
comment on function shardman.roles_here(text) is
    'what the roles with rights on sharded tables are on this server, or this one, and those of which they are members; superusers never';

create or replace function shardman.setting_sql(name text, value text) returns text
language sql immutable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    -- What holds several names is kept as it was written, each name in its own quotes.
    select case when name not in ('search_path', 'temp_tablespaces', 'local_preload_libraries', 'session_preload_libraries')
                then format('set %s to %L', quote_ident(name), value)
                else format('set %s to %s', name,
                            (select coalesce(string_agg(quote_literal(case when m[1] like '"%' then replace(substr(m[1], 2, length(m[1]) - 2), '""', '"') else m[1] end), ', '),
                                             '''''')
                               from regexp_matches(value, '("(?:[^"]|"")*"|[^",\s]+)', 'g') as m)) end
$$;
comment on function shardman.setting_sql(text, text) is 'the end of an ALTER ROLE that gives a setting its value, as pg_db_role_setting has it';

create or replace function shardman.role_changes(wanted jsonb) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (select r.oid, quote_ident(wanted ->> 'name') as name, shardman.role_text(r.oid) as have from pg_roles r where r.rolname = wanted ->> 'name')
    select format('alter role %s with %s', me.name, string_agg(a, ' ' order by a))
      from me cross join jsonb_object_keys(wanted -> 'attributes') as a where not me.have -> 'attributes' ? a group by me.name
    union all
    select format('alter role %s password %L', me.name, wanted ->> 'password')
      from me where wanted ->> 'password' is distinct from me.have ->> 'password' and wanted ->> 'password' is not null
    union all
    select format('alter role %s %sreset %I', me.name, case when (s ->> 'here')::bool then format('in database %I ', current_database()) else '' end, s ->> 'name')
      from me cross join jsonb_array_elements(me.have -> 'settings') as s where not wanted -> 'settings' @> jsonb_build_array(s)
    union all
    select format('alter role %s %s%s', me.name, case when (s ->> 'here')::bool then format('in database %I ', current_database()) else '' end,
                  shardman.setting_sql(s ->> 'name', s ->> 'value'))
      from me cross join jsonb_array_elements(wanted -> 'settings') as s where not me.have -> 'settings' @> jsonb_build_array(s)
    union all
    -- From 16 on several roles may each have given it.
    select format('revoke %I from %s%s', p.rolname, me.name,
                  case when current_setting('server_version_num')::int >= 160000 then format(' granted by %I', pg_get_userbyid(m.grantor)) else '' end)
      from me join pg_auth_members m on m.member = me.oid join pg_roles p on p.oid = m.roleid
     where not wanted -> 'groups' ? p.rolname and p.rolname !~ '^shardman_' and not p.rolsuper
    union all
    select format('grant %I to %s%s', g.name, me.name,
                  case when current_setting('server_version_num')::int >= 160000
                       then format(' with admin %s, inherit %s, set %s', g.how ->> 'admin', coalesce(g.how ->> 'inherit', 'true'), coalesce(g.how ->> 'set', 'true'))
                       when (g.how ->> 'admin')::bool then ' with admin option' else '' end)
      from me cross join jsonb_each(wanted -> 'groups') as g (name, how)
      join pg_roles p on p.rolname = g.name and not shardman.is_mighty(p.oid)
     where (me.have -> 'groups' -> g.name) is null
        or exists (select from jsonb_each(g.how) as o (option, value)
                    where o.value <> 'null' and me.have -> 'groups' -> g.name -> o.option not in ('null', o.value))
$$;
comment on function shardman.role_changes(jsonb) is 'the statements that make a role of this server what it is to be (shardman.role_text)';

create or replace function shardman.take_role(wanted jsonb) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name_  constant name := wanted ->> 'name';
    here   constant oid := (select r.oid from pg_roles r where r.rolname = name_);
    change text;
begin
    if here is null then
        execute format('create role %I', name_);
    elsif not shardman.may_be_synced(here) then
        return format('%I is a superuser, or the cluster''s own, here: it is left alone', name_);
    end if;
    for change in select * from shardman.role_changes(wanted) loop
        execute change;
    end loop;
    return (select format('%I is no member of %s, which on this node %s', name_, string_agg(quote_ident(g), ', ' order by g), 'is not there or is a superuser''s')
              from jsonb_object_keys(wanted -> 'groups') g
             where not exists (select from pg_roles p where p.rolname = g and not shardman.is_mighty(p.oid)) having count(*) > 0);
exception when others then
    return format('%I: %s', name_, sqlerrm);
end
$$;
comment on function shardman.take_role(jsonb) is 'makes a role of this server what it is to be; what was in the way, null when nothing was';

create or replace function shardman.take_roles(roles jsonb) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    missing name;
begin
    -- All of them first: they may be members of one another.
    for missing in
        select r ->> 'name' from jsonb_array_elements(roles) r where not exists (select from pg_roles p where p.rolname = r ->> 'name')
    loop
        execute format('create role %I', missing);
    end loop;
    return array(select t.failed from jsonb_array_elements(roles) r cross join lateral (select shardman.take_role(r) as failed) as t where t.failed is not null);
end
$$;
comment on function shardman.take_roles(jsonb) is 'makes roles of this server what they are on another; what was in the way';

-- By themselves: a role that was the same on two servers, its stored password included, and was then changed on the lord's, is changed
-- on the other one too (lord/watchers/roles.py). Only one who had the password, or brought it there, makes two stored passwords
-- equal: so they are one role, and not two of one name. Nobody gets powers in this way.

create or replace function shardman.role_proof(role jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select encode(sha256(convert_to(role::text, 'UTF8')), 'hex') where role ->> 'password' is not null
$$;
comment on function shardman.role_proof(jsonb) is
    'what two servers have in common on which a role is the same (shardman.role_text); null for one without a password, or whose password we may not see';

create or replace function shardman.cautious_role(wanted jsonb, have jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- A setting that only a superuser may make may be a right given on the other server alone, and so may one that nobody here knows.
    with settings (setting, plain, is_wanted) as (
        select s, exists (select from pg_settings g where lower(g.name) = lower(s ->> 'name') and g.context = 'user'), w.is_wanted
          from (values (wanted, true), (have, false)) as w (role, is_wanted) cross join jsonb_array_elements(w.role -> 'settings') as s)
    select wanted || jsonb_build_object(
        'attributes', (select jsonb_object_agg(case when a in ('createdb', 'createrole', 'replication', 'bypassrls') and not have -> 'attributes' ? a then 'no' || a else a end, 1)
                         from jsonb_object_keys(wanted -> 'attributes') a),
        'settings', (select coalesce(jsonb_agg(s.setting), '[]') from settings s where s.plain = s.is_wanted),
        'groups', (select coalesce(jsonb_object_agg(g.name, g.how), '{}') from jsonb_each(have -> 'groups') as g (name, how) where wanted -> 'groups' ? g.name))
$$;
comment on function shardman.cautious_role(jsonb, jsonb) is
    'of what a role is to be, what it may become without being asked for: no more powers, no more memberships, no settings but those that everybody may make';

create or replace function shardman.follow_role(wanted jsonb, before text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    here constant oid := (select r.oid from pg_roles r where r.rolname = wanted ->> 'name');
    have constant jsonb := shardman.role_text(here);
begin
    if before is null or shardman.role_proof(have) is distinct from before or shardman.role_proof(wanted) is null or not shardman.may_be_synced(here) then
        return format('%I is not what it was on this node', wanted ->> 'name');
    end if;
    return shardman.take_role(shardman.cautious_role(wanted, have));
end
$$;
comment on function shardman.follow_role(jsonb, text) is
    'changes a role of this server as it was changed on the lord''s, where it is what it was there before (shardman.role_proof); what was in the way, null when nothing was';
