-- Who may use a sharded table may use what it consists of, and nobody else: statements arrive from other nodes as who sent
-- them, and name the partition. So owner, privileges and policies of partitions and data tables follow the parent's, on
-- each node for itself, whatever changed them.

create or replace function shardman.privileges_of(rel oid) returns table (grantee oid, privilege text, grantable bool, column_name name)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select x.grantee, x.privilege_type, bool_or(x.is_grantable), null
      from pg_class c, aclexplode(c.relacl) x
     where c.oid = rel and x.grantee <> c.relowner group by 1, 2
    union all
    select x.grantee, x.privilege_type, bool_or(x.is_grantable), a.attname
      from pg_class c join pg_attribute a on a.attrelid = c.oid and not a.attisdropped, aclexplode(a.attacl) x
     where c.oid = rel and x.grantee <> c.relowner group by 1, 2, 4
$$;
comment on function shardman.privileges_of(oid) is 'privileges on a relation and on its columns, of others than the owner; PUBLIC has the oid 0';

create or replace function shardman.leave_to_owner(rel oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    grantee_ oid;
begin
    for grantee_ in select distinct p.grantee from shardman.privileges_of(rel) p loop
        execute format('revoke all on %s from %s cascade', rel::regclass,
                       case grantee_ when 0 then 'public' else quote_ident(pg_get_userbyid(grantee_)) end);
    end loop;
end
$$;
comment on function shardman.leave_to_owner(oid) is 'takes all rights on a table from all but its owner';

create or replace function shardman.privilege_changes(parent oid, child oid) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with wanted as (select * from shardman.privileges_of(parent)), have as (select * from shardman.privileges_of(child)),
    changes (verb, p) as (
        select 'revoke', h from have h
         where not exists (select from wanted w where (w.grantee, w.privilege) = (h.grantee, h.privilege)
                              and w.column_name is not distinct from h.column_name and w.grantable >= h.grantable)
        union all
        select 'grant', w from wanted w
         where not exists (select from have h where (w.grantee, w.privilege, w.grantable) = (h.grantee, h.privilege, h.grantable)
                              and w.column_name is not distinct from h.column_name)
    )
    select format('%s %s on %s %s %s%s', verb, string_agg((p).privilege || coalesce(' (' || quote_ident((p).column_name) || ')', ''), ', '),
                  child::regclass, case verb when 'grant' then 'to' else 'from' end,
                  case (p).grantee when 0 then 'public' else quote_ident(pg_get_userbyid((p).grantee)) end,
                  case when verb = 'revoke' then ' cascade' when (p).grantable then ' with grant option' else '' end)
      from changes group by verb, (p).grantee, (p).grantable
     order by verb = 'grant'
$$;
comment on function shardman.privilege_changes(oid, oid) is 'the statements that give a relation the privileges of another one';

create or replace function shardman.policy_expression(expression text, of_table name, for_table name) returns text
language sql immutable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on set quote_all_identifiers = off as $$
    -- Inside of a sub-select PostgreSQL writes the table's name before its columns; the table itself is never called so there.
    -- Literals and names in quotes are words of their own: what looks like it in them is left alone.
    select string_agg(case when word = quote_ident(of_table) and next = '.' and coalesce(previous <> '.', true)
                           then quote_ident(for_table) else word end, '' order by n)
      from (select m[1] as word, n, lag(m[1]) over w as previous, lead(m[1]) over w as next
              from regexp_matches(expression, '(''(?:[^'']|'''')*''|"(?:[^"]|"")*"|[\w$]+|.)', 'g') with ordinality as u (m, n)
            window w as (order by n)) as words
$$;
comment on function shardman.policy_expression(text, name, name) is 'an expression of a policy of one table, as it has to read for another';

create or replace function shardman.policies_of(rel oid) returns table (name name, head text, roles oid[], using_ text, check_ text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.polname, format('as %s for %s', case when p.polpermissive then 'permissive' else 'restrictive' end,
                             case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end),
           array(select r from unnest(p.polroles) r order by r), pg_get_expr(p.polqual, rel), pg_get_expr(p.polwithcheck, rel)
      from pg_policy p where p.polrelid = rel
$$;
comment on function shardman.policies_of(oid) is 'the policies of row-level security of a table; PUBLIC has the oid 0';

create or replace function shardman.policy_changes(parent oid, child oid, forced bool) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with p as (select * from pg_class where oid = parent), c as (select * from pg_class where oid = child),
    wanted as (
        select w.name, w.head, w.roles, shardman.policy_expression(w.using_, p.relname, c.relname) as using_,
               shardman.policy_expression(w.check_, p.relname, c.relname) as check_
          from p, c, shardman.policies_of(parent) w
    ), have as (select * from shardman.policies_of(child)),
    differing as (
        select coalesce(w.name, h.name) as name, w, h from wanted w full join have h on h.name = w.name
         where (w.head, w.roles, w.using_, w.check_) is distinct from (h.head, h.roles, h.using_, h.check_)
    )
    select format('alter table %s enable row level security', child::regclass) from p, c where p.relrowsecurity and not c.relrowsecurity
    union all
    select format('drop policy %I on %s', d.name, child::regclass) from differing d where (d.h).name is not null
    union all
    select format('create policy %I on %s %s to %s%s%s', d.name, child::regclass, (d.w).head,
                  (select string_agg(case r when 0 then 'public' else quote_ident(pg_get_userbyid(r)) end, ', ') from unnest((d.w).roles) r),
                  ' using (' || (d.w).using_ || ')', ' with check (' || (d.w).check_ || ')')
      from differing d where (d.w).name is not null
    union all
    select format('alter table %s %s row level security', child::regclass, case when p.relforcerowsecurity and forced then 'force' else 'no force' end)
      from p, c where c.relforcerowsecurity <> (p.relforcerowsecurity and forced)
    union all
    select format('alter table %s disable row level security', child::regclass) from p, c where c.relrowsecurity and not p.relrowsecurity
$$;
comment on function shardman.policy_changes(oid, oid, bool) is
    'the statements that give a table the row-level security of another one; forced: also what it forces on the owner. Not on data '
    'tables, into which the owner''s apply workers write; nobody reaches those through the sharded table';

create or replace function shardman.is_held(rel oid) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_locks l where l.pid = pg_backend_pid() and l.locktype = 'relation' and l.relation = rel
                      and l.database = (select oid from pg_database where datname = current_database())
                      and l.granted and l.mode = 'AccessExclusiveLock')
$$;
comment on function shardman.is_held(oid) is 'whether this transaction holds a table against everybody';

create or replace function shardman.follow_parent(child oid, parent oid, lock_free bool default false) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    kind   constant "char" := (select relkind from pg_class where oid = child limit 1);
    change text;
begin
    if lock_free then
        if kind <> 'f' then
            for change in select * from shardman.privilege_changes(parent, child) loop
                execute change;
            end loop;
        end if;
        return;
    end if;
    perform shardman.give_to(child, shardman.owner_wanted(child, parent));
    if kind = 'f' then
        perform shardman.leave_to_owner(child);
        return;
    end if;
    perform shardman.need_trusted_types((select jsonb_agg(to_jsonb(p)) from shardman.policies_of(parent) p));
    for change in
        select * from shardman.privilege_changes(parent, child)
        union all select * from shardman.policy_changes(parent, child, kind = 'p')
    loop
        execute change;
    end loop;
end
$$;
comment on function shardman.follow_parent(oid, oid, bool) is
    'gives a partition or data table the owner (see shardman.owner_wanted), the privileges and the policies of its parent, a route the owner alone. '
    'lock_free: privileges alone, for which nobody is waited for';

create or replace function shardman.rights_apart(relation_ text) returns table (relation text, parent oid, child oid)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with parents as materialized (
        select t.relation, c.oid, c.relowner, c.relacl::text as acl, c.relrowsecurity, c.relforcerowsecurity,
               exists (select from pg_attribute a where a.attrelid = c.oid and a.attacl is not null) as columns
          from shardman.tables t join pg_class c on c.oid = shardman.find_relation(t.relation) and c.relkind = 'p'
         where relation_ is null or t.relation = relation_
    ), parts as materialized (
        select p.*, s.oid as part, s.relnamespace, s.relname, s.relkind
          from parents p join pg_inherits i on i.inhparent = p.oid join pg_class s on s.oid = i.inhrelid and s.relkind = 'p'
    )
    select s.relation, s.oid, x.oid
      from parts s
      join pg_class x on x.relnamespace = s.relnamespace and x.relname in (s.relname, (s.relname || '_data')::name, (s.relname || '_fdw')::name)
     where x.relkind in ('p', 'r', 'f')
       and case when x.relowner <> case when x.relkind = 'r' and not x.relispartition then shardman.our_role() else s.relowner end then true
                -- Nobody reaches it by its own name: what it was given it has by ALTER DEFAULT PRIVILEGES.
                when x.relkind = 'f' then x.relacl is not null and exists (select from shardman.privileges_of(x.oid))
                when x.relacl::text is distinct from s.acl or s.columns
                     or exists (select from pg_attribute a where a.attrelid = x.oid and a.attacl is not null)
                     then exists (select from shardman.privilege_changes(s.oid, x.oid)) end
            or x.relkind <> 'f' and (s.relrowsecurity or x.relrowsecurity)
               and exists (select from shardman.policy_changes(s.oid, x.oid, x.relkind = 'p'))
$$;
comment on function shardman.rights_apart(text) is
    'partitions, data tables and routes of a table (null: of all) whose owner, privileges or policies are not their parent''s';

create or replace function shardman.mend_rights(relation_ text, lock_free bool default false) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    apart  record;
    hint_  text;
    failed text[] := '{}';
begin
    for apart in select * from shardman.rights_apart(relation_) loop
        begin
            perform shardman.follow_parent(apart.child, apart.parent, lock_free);
        exception
            when lock_not_available or deadlock_detected then
                null;
            when others then
                get stacked diagnostics hint_ = pg_exception_hint;
                perform shardman.note_problem('rights on ' || apart.relation, concat_ws('. ', sqlerrm, nullif(rtrim(hint_, '.'), '')));
                failed := failed || ('rights on ' || apart.relation);
        end;
    end loop;
    return failed;
end
$$;
comment on function shardman.mend_rights(text, bool) is
    'lets partitions, data tables and routes of a table (null: of all) follow the rights on it; returns what failed, which is recorded';

create or replace function shardman.rights_everywhere() returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.must_be_lord();
    -- Also into the definitions: who lacks a role gets its rights from there once it is made.
    perform shardman.remember_rights();
    return (select coalesce(jsonb_agg(t.definition order by t.relation), '[]') from shardman.tables t);
end
$$;
comment on function shardman.rights_everywhere() is
    'lord only: the definitions of all sharded tables with owner, rights and policies as they are in the lord''s database now';

create or replace function shardman.take_rights(definitions jsonb) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    wanted jsonb;
    mine   jsonb;
    rel    oid;
    name   text;
    taken  text[] := '{}';
begin
    for wanted in select d from jsonb_array_elements(definitions) d loop
        name := wanted ->> 'relation';
        rel := shardman.find_relation(name);
        -- Null where this node does not have the table yet: it makes it from the definition.
        mine := shardman.with_rights(wanted);
        if mine is null then
            continue;
        end if;
        perform shardman.make_schema(wanted);
        if (mine -> 'owner', mine -> 'acl', mine -> 'row_security', mine -> 'sequences')
           = (wanted -> 'owner', wanted -> 'acl', wanted -> 'row_security', wanted -> 'sequences') then
            continue;
        end if;
        perform shardman.take_rights_of(wanted, rel);
        taken := taken || name;
    end loop;
    return taken;
end
$$;
comment on function shardman.take_rights(jsonb) is
    'gives the sharded tables of a node that was away owner, rights and policies as shardman.rights_everywhere has them; those of which '
    'something differed';

create or replace function shardman.take_rights_of(definition jsonb, rel oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name     constant text := definition ->> 'relation';
    wanted   constant jsonb := definition -> 'row_security';
    policy   name;
    seq      oid;
begin
    if exists (select from pg_roles where rolname = definition ->> 'owner') then
        perform shardman.give_to(rel, (select oid from pg_roles where rolname = definition ->> 'owner'));
    end if;
    -- All of it in one transaction: nobody is without his rights meanwhile.
    perform shardman.leave_to_owner(rel);
    for policy in select p.polname from pg_policy p where p.polrelid = rel loop
        execute format('drop policy %I on %s', policy, rel::regclass);
    end loop;
    if not (wanted ->> 'enabled')::bool then
        execute format('alter table %s disable row level security', rel::regclass);
    end if;
    if not (wanted ->> 'forced')::bool then
        execute format('alter table %s no force row level security', rel::regclass);
    end if;
    for seq in select shardman.find_relation(s ->> 'name') from jsonb_array_elements(definition -> 'sequences') s loop
        if seq is not null then
            perform shardman.leave_to_owner(seq);
        end if;
    end loop;
    perform shardman.apply_rights(definition, name);
end
$$;

create or replace function shardman.apply_rights(definition jsonb, name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    failures text;
begin
    perform shardman.need_trusted_types(definition);
    select string_agg(f, '; ') into failures from (
        select shardman.try_sql(x) from (
            select shardman.privilege_sql(definition, name, 'table') union all select shardman.policy_sql(definition, name)
            union all select shardman.sequence_extras(definition, name, n::int - 1)
                        from jsonb_array_elements(definition -> 'sequences') with ordinality as u (s, n)) as s (x)) as t (f);
    if failures is null then
        delete from shardman.problems where subject = 'privileges of ' || name;
    else
        perform shardman.note_problem('privileges of ' || name, failures);
    end if;
end
$$;
comment on function shardman.apply_rights(jsonb, text) is 'as shardman.apply_extras, of a table that is there: owner, rights and policies alone';
