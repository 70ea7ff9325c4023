-- Roads: a statement acts on other nodes as who sent it. Each role that may use sharded tables has a road login on every
-- node, of which other nodes' user mappings for the role know the password. The login is a member of the role and of nothing
-- else, inherits nothing, and sets the role when it connects. So it has the role's rights and, after RESET ROLE, none.
--
-- Name and password follow from the role's name and from shardman.road_secret, so all nodes agree without asking each
-- other. All state is in the catalogs: the login's comment says whose it is and proves its password; an explicit CONNECT
-- on a database says which databases of the server it serves.

create or replace function shardman.ensure_road_secret() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    insert into shardman.road_secret (secret)
    select encode(sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')), 'hex')
     where not exists (select from shardman.road_secret)
$$;
comment on function shardman.ensure_road_secret() is 'lord only: makes the secret of the road logins, once';

create or replace function shardman.road_login(role name) returns name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select (case when octet_length(p || role) <= 63 and p || role not in ('shardman_operator', 'shardman_viewer') then p || role
                 else shardman.cut_bytes(p || role, 63 - 9) || '_' || left(md5(role), 8) end)::name
      from (select shardman.setting('road_prefix', 'shardman_')) as s (p)
$$;
comment on function shardman.road_login(name) is
    'the name of a role''s road login; two clusters on one server need different prefixes, the setting road_prefix';

create or replace function shardman.road_password(login name) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select encode(sha256(convert_to(s.secret, 'UTF8') || sha256(convert_to(s.secret || login, 'UTF8'))), 'hex')
      from shardman.road_secret s
$$;
comment on function shardman.road_password(name) is 'the password of a road login; null while this node does not have the secret';

create or replace function shardman.stored_password(login name) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    -- A superuser's alone to see. Another role notices no password that somebody has changed by hand.
    if has_table_privilege('pg_authid', 'select') then
        return (select a.rolpassword from pg_authid a where a.rolname = login);
    end if;
    return null;
end
$$;
comment on function shardman.stored_password(name) is 'the password of a role as the server stores it; null where this role may not know';

create or replace function shardman.road_mark(login name, role name, verifier text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('shardman road of cluster %s, %s: statements of %s arrive from other nodes through it', l.cluster,
                  left(encode(sha256(convert_to(coalesce(verifier, '') || shardman.road_password(login), 'UTF8')), 'hex'), 16), quote_ident(role))
      from shardman.local l
$$;
comment on function shardman.road_mark(name, name, text) is
    'the comment of a road login. It fits only the password that the login has, as stored by the server, and was to have';

create or replace function shardman.road_cluster(login oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select (regexp_match(shobj_description(login, 'pg_authid'), '^shardman road of cluster ([a-z0-9]{6}), '))[1]
$$;
comment on function shardman.road_cluster(oid) is 'the cluster whose road login a role is; null when it is none';

create or replace function shardman.serves_database(login oid, database oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_database d, aclexplode(d.datacl) x
                    where d.oid = database and x.grantee = login and x.privilege_type = 'CONNECT')
$$;
comment on function shardman.serves_database(oid, oid) is 'whether a road login is one of this database''s';

create or replace function shardman.is_ordinary(role oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select not r.rolsuper and r.oid <> (select nspowner from pg_namespace where nspname = 'shardman')
      from pg_roles r where r.oid = role
$$;
comment on function shardman.is_ordinary(oid) is
    'whether a role goes to other nodes as itself. Superusers and the nodes'' role go as the nodes'' role';

create or replace function shardman.road_state() returns table (role name, login name, login_oid oid, ready bool)
language sql stable set search_path = pg_catalog, pg_temp as $$
    with wanted as materialized (
        select r.oid, r.rolname, shardman.road_login(r.rolname) as login
          from shardman.mapped_roles() as m (role) join pg_roles r on r.rolname = m.role
         where shardman.is_ordinary(r.oid)
    ), here as (select oid from pg_database where datname = current_database())
    select w.rolname, w.login, a.oid,
           coalesce(a.rolcanlogin and not (a.rolsuper or a.rolinherit or a.rolcreaterole or a.rolcreatedb or a.rolreplication or a.rolbypassrls)
                    and a.rolconnlimit = -1 and coalesce(a.rolvaliduntil = 'infinity', true)
                    and shobj_description(a.oid, 'pg_authid') = shardman.road_mark(w.login, w.rolname, shardman.stored_password(a.rolname))
                    and shardman.serves_database(a.oid, here.oid)
                    and (select bool_and(m.roleid = w.oid and not m.admin_option
                                         and coalesce((to_jsonb(m) ->> 'set_option')::bool, true)
                                         and not coalesce((to_jsonb(m) ->> 'inherit_option')::bool, false))
                           from pg_auth_members m where m.member = a.oid)
                    -- Who is no superuser administers what he has made.
                    and not exists (select from pg_auth_members m where m.roleid = a.oid and m.member <> shardman.our_role())
                    and (select array_agg(s.setdatabase || ':' || c) from pg_db_role_setting s, unnest(s.setconfig) c where s.setrole = a.oid)
                        = array['0:role=' || w.rolname], false)
      from wanted w cross join here left join pg_roles a on a.rolname = w.login
$$;
comment on function shardman.road_state() is
    'the roles of this node that need road logins, the login''s name, and whether it is there with all that it must be, and no more';

create or replace function shardman.make_road(role_ name, login_ name) returns void
language plpgsql set search_path = pg_catalog, pg_temp set password_encryption = 'scram-sha-256' as $$
declare
    made   constant oid := (select oid from pg_roles where rolname = login_);
    theirs constant text := shardman.road_cluster(made);
    other  record;
    mark   text;
begin
    if made is not null and (theirs is null or theirs <> (select cluster from shardman.local) and exists (
           select from pg_database d where d.datname <> current_database() and shardman.serves_database(made, d.oid))) then
        raise exception 'the role % is %, statements of % cannot arrive from other nodes', quote_ident(login_),
              coalesce('the road login of cluster ' || theirs, 'not the cluster''s'), quote_ident(role_)
            using errcode = 'duplicate_object',
                  hint = case when theirs is null then format('Rename it: ALTER ROLE %I RENAME TO ...', login_)
                              else 'Give this cluster another setting road_prefix.' end;
    end if;
    perform shardman.need_role((select oid from pg_roles where rolname = role_));
    if made is null then
        execute format('create role %I', login_);
    else
        for other in select m.roleid, m.member from pg_auth_members m
                      where made in (m.member, m.roleid) and m.member <> shardman.our_role() loop
            execute format('revoke %I from %I cascade', pg_get_userbyid(other.roleid), pg_get_userbyid(other.member));
        end loop;
        for other in select d.datname from pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase where s.setrole = made loop
            execute format('alter role %I %s reset all', login_, coalesce('in database ' || quote_ident(other.datname), ''));
        end loop;
    end if;
    -- Each is named only where it is to change: nobody may even name what he has not himself.
    execute format('alter role %I login noinherit %s connection limit -1 valid until ''infinity'' password %L', login_,
                   (select concat_ws(' ', case when r.rolsuper then 'nosuperuser' end, case when r.rolcreaterole then 'nocreaterole' end,
                                     case when r.rolcreatedb then 'nocreatedb' end, case when r.rolreplication then 'noreplication' end,
                                     case when r.rolbypassrls then 'nobypassrls' end) from pg_roles r where r.rolname = login_),
                   shardman.road_password(login_));
    execute format('grant %I to %I%s', role_, login_,
                   case when current_setting('server_version_num')::int >= 160000 then ' with admin false, inherit false, set true' else '' end);
    execute format('alter role %I set role = %L', login_, role_);
    execute format('grant connect on database %I to %I', current_database(), login_);
    mark := shardman.road_mark(login_, role_, shardman.stored_password(login_));
    execute format('comment on role %I is %L', login_, mark);
end
$$;
comment on function shardman.make_road(name, name) is
    'makes the road login of a role, or one that is ours what it must be; raises where its name is a stranger''s';

create or replace function shardman.spare_roads() returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.oid from pg_roles r
     where shardman.road_cluster(r.oid) = (select cluster from shardman.local)
       and r.rolname not in (select s.login from shardman.road_state() s)
       and not shardman.lacks_tables()
$$;
comment on function shardman.spare_roads() is 'road logins of this cluster on this server that this database does not need';

create or replace function shardman.drop_road(login oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.serves_database(login, (select oid from pg_database where datname = current_database())) then
        execute format('revoke connect on database %I from %I', current_database(), pg_get_userbyid(login));
    end if;
    -- Another database of this server may be a node too.
    if not exists (select from pg_database d where shardman.serves_database(login, d.oid)) then
        execute format('drop role %I', pg_get_userbyid(login));
    end if;
end
$$;
comment on function shardman.drop_road(oid) is 'takes a road login from this database, and drops it once it serves no other';

create or replace function shardman.drop_roads() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    login oid;
begin
    for login in select r.oid from pg_roles r where shardman.road_cluster(r.oid) = (select cluster from shardman.local) loop
        perform shardman.drop_road(login);
    end loop;
end
$$;
comment on function shardman.drop_roads() is 'takes all road logins from this database, which leaves its cluster';

create or replace function shardman.mend_roads() returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    road     record;
    login    oid;
    hint_    text;
    failures text[] := '{}';
begin
    if not exists (select from shardman.road_secret) then
        return '{}';
    end if;
    for road in select * from shardman.road_state() s where not s.ready loop
        begin
            perform shardman.make_road(road.role, road.login);
        exception when others then
            get stacked diagnostics hint_ = pg_exception_hint;
            failures := failures || format('road login of %s: %s', quote_ident(road.role), concat_ws('. ', sqlerrm, nullif(rtrim(hint_, '.'), '')));
        end;
    end loop;
    for login in select * from shardman.spare_roads() loop
        begin
            perform shardman.drop_road(login);
        exception when others then
            failures := failures || format('road login %s: %s', quote_ident(pg_get_userbyid(login)), sqlerrm);
        end;
    end loop;
    return failures;
end
$$;
comment on function shardman.mend_roads() is
    'makes the road logins of this node what the rights on its sharded tables want; one that fails keeps none of the others; '
    'returns what failed';

create or replace function shardman.has_untold_roads() returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from shardman.nodes n where n.id = shardman.my_id() and not n.roads)
       and exists (select from shardman.road_secret)
       and not exists (select from shardman.road_state() s where not s.ready);
end
$$;
comment on function shardman.has_untold_roads() is
    'whether this node has made its road logins and the cluster does not know it yet: nodes.roads is still false';
