-- Where the cluster's role is no superuser it acts for others as their member, and lets road logins become them: it must have been
-- given each role that owns or uses a sharded table. What it must be given for itself: queries/rights.sql.

create or replace function shardman.acts_for(role oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when r.rolsuper or r.oid = role then true
                else pg_has_role(r.oid, role, 'usage') and pg_has_role(r.oid, role, 'set')
                     and pg_has_role(r.oid, role, 'usage with admin option') end
      from pg_roles r where r.oid = shardman.our_role()
$$;
comment on function shardman.acts_for(oid) is 'whether the cluster''s role may do what a role may, become it, and let others become it';

create or replace function shardman.way_to_role(role oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when r.rolsuper then format('Give the table to a role that is no superuser, and that one to %I', pg_get_userbyid(shardman.our_role()))
                else format('Let a superuser run on every node: GRANT %I TO %I WITH ADMIN OPTION', r.rolname, pg_get_userbyid(shardman.our_role())) end
      from pg_roles r where r.oid = role
$$;
comment on function shardman.way_to_role(oid) is 'what lets the cluster''s role act for a role';

create or replace function shardman.role_obstacles(rel oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.obstacle(format('%s belongs to %I, for which the cluster''s role %I may not act', shardman.metadata_name(rel),
                                    pg_get_userbyid(c.relowner), pg_get_userbyid(shardman.our_role())),
                             shardman.way_to_role(c.relowner))
      from pg_class c where c.oid = rel and not shardman.acts_for(c.relowner)
$$;
comment on function shardman.role_obstacles(oid) is 'why the cluster''s role, where it is no superuser, may not shard a table';

create or replace function shardman.need_role(role oid) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if not shardman.acts_for(role) then
        raise exception 'the cluster''s role % may not act for %', quote_ident(pg_get_userbyid(shardman.our_role())),
              quote_ident(pg_get_userbyid(role))
            using errcode = 'insufficient_privilege', hint = shardman.way_to_role(role) || '.';
    end if;
end
$$;
comment on function shardman.need_role(oid) is 'raises where the cluster''s role may not act for a role, with what lets it';
