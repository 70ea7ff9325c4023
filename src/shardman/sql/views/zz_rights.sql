-- Behind all tables, routines and views: who but the nodes' role may do what with them. Ordinary roles have no way into the
-- schema; the two roles of ours have.

create or replace function shardman.ensure_role(role_ name, purpose text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_roles where rolname = role_) then
        execute format('create role %I nologin', role_);
        execute format('comment on role %I is %L', role_, purpose);
    elsif coalesce(shobj_description((select oid from pg_roles where rolname = role_), 'pg_authid'), '') not like 'pg_shardman: %' then
        -- Whoever has made it may have given it to whom he likes.
        raise exception 'the server has a role % that is not ours', quote_ident(role_)
            using errcode = 'SHM08',
                  hint = format('Rename it (ALTER ROLE %1$I RENAME TO ...); or, if it may have these rights, COMMENT ON ROLE %1$I IS %2$L.',
                                role_, purpose);
    end if;
end
$$;
comment on function shardman.ensure_role(name, text) is 'makes a role of ours on this server; raises where a stranger''s has its name';

create or replace function shardman.ensure_roles() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel record;
begin
    perform shardman.ensure_role('shardman_viewer', 'pg_shardman: may read the views and tables of the schema shardman, and status');
    perform shardman.ensure_role('shardman_operator', 'pg_shardman: may submit and cancel commands, and all that shardman_viewer may');
    if not pg_has_role('shardman_operator', 'shardman_viewer', 'member') then
        grant shardman_viewer to shardman_operator;
    end if;
    if not pg_has_role('shardman_viewer', 'pg_monitor', 'member') then
        grant pg_monitor to shardman_viewer;
    end if;
    grant usage on schema shardman to shardman_viewer, shardman_operator;
    for rel in
        select c.oid::regclass as name from pg_class c
         where c.relnamespace = 'shardman'::regnamespace and c.relkind in ('r', 'v')
           and c.relname not in ('node_secrets', 'cmd_secrets', 'road_secret', 'inbox', 'replaced_rows')
           and not has_table_privilege('shardman_viewer', c.oid, 'select')
    loop
        execute format('grant select on %s to shardman_viewer', rel.name);
    end loop;
    -- They act as the nodes' role. Every other function acts as who calls it, and can be left to whoever gets here.
    revoke execute on function shardman.submit(text, json, text), shardman.cancel_cmd(bigint), shardman.hold_commits_here(), shardman.hold_commits(),
        shardman.release_commits(), shardman.arm_now(text, int, jsonb), shardman.refuse_leaving() from public;
    grant execute on function shardman.submit(text, json, text), shardman.cancel_cmd(bigint), shardman.hold_commits_here(), shardman.hold_commits(),
        shardman.release_commits() to shardman_operator;
end
$$;
comment on function shardman.ensure_roles() is
    'makes the roles shardman_operator and shardman_viewer of this server, and gives them their rights in this database';

do $$
begin
    perform shardman.ensure_roles();
end
$$;
