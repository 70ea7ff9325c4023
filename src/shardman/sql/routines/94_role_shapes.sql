-- Roles that use the cluster's tables: whether they are the same on every node. `shardman check` and `shardman status` compare it.

create or replace function shardman.named_roles() returns setof name
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Of shared tables only where this node has a copy.
    with tables (definition) as (
        select t.definition from shardman.tables t
        union all
        select s.definition from shardman.shared_tables s
         where exists (select from shardman.shared_copies c where (c.relation, c.node) = (s.relation, shardman.my_id()))
    )
    select (t.definition ->> 'owner')::name from tables t where t.definition ->> 'owner' is not null
    union
    select (a ->> 'grantee')::name from tables t cross join jsonb_array_elements(t.definition -> 'acl') a where a ->> 'grantee' is not null
$$;
comment on function shardman.named_roles() is 'the owners of the cluster''s tables that this node has, and those who have rights on them, as the metadata name them';

create or replace function shardman.compared_roles() returns table (name name, role oid)
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive used (oid) as (
        select r.oid from shardman.named_roles() n join pg_roles r on r.rolname = n
        union
        select m.roleid from used u join pg_auth_members m on m.member = u.oid
    )
    select r.rolname, r.oid from used u join pg_roles r on r.oid = u.oid where r.oid <> shardman.our_role() and r.rolname !~ '^(pg|shardman)_'
    union all
    select n, null from shardman.named_roles() n where n !~ '^(pg|shardman)_' and not exists (select from pg_roles r where r.rolname = n)
$$;
comment on function shardman.compared_roles() is
    'the roles that must be the same on all nodes: those of shardman.named_roles and all that they are members of; without an oid: it is not here';

create or replace function shardman.role_items(role_ oid) returns table (aspect text, item text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select 'existence', case when role_ is null then 'no such role' else 'the role' end
    union all
    select 'attributes', a from jsonb_object_keys(shardman.role_text(role_) -> 'attributes') a where shardman.may_be_synced(role_)
    union all
    select 'attributes', 'a superuser, the cluster''s role, or a way to one' where not shardman.may_be_synced(role_)
    union all
    -- A setting of an extension's or an application's may be a secret.
    select 'settings', concat(s ->> 'name', ' ', case when s ->> 'name' like '%.%' then 'with the digest ' || left(md5(s ->> 'value'), 8) else s ->> 'value' end,
                              case when (s ->> 'here')::bool then ' in this database' end)
      from jsonb_array_elements(shardman.role_settings(role_)) s
    union all
    select distinct 'members', r.rolname::text from pg_auth_members m join pg_roles r on r.oid = m.member
     where m.roleid = role_ and shardman.may_be_synced(r.oid)
$$;
comment on function shardman.role_items(oid) is 'what a role is on this server, as texts to compare, by aspect; never its password';

create or replace function shardman.role_shapes() returns table (relation text, kind text, aspect text, items text[], names text[])
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    select 'role ' || quote_ident(c.name), 'role', a.aspect,
           array(select i.item from shardman.role_items(c.role) i where i.aspect = a.aspect order by i.item collate "C"), array['role ' || quote_ident(c.name)]
      from shardman.compared_roles() c cross join unnest(array['existence', 'attributes', 'settings', 'members']) as a (aspect)
     where c.role is not null or a.aspect = 'existence'
$$;
comment on function shardman.role_shapes() is 'this node: what the roles that use the cluster''s tables are here (kind role), as shardman.shapes has it of tables';
