-- What is in no table, on a node that is added: views, functions, types, schemas and extensions that DDL has spread to all nodes
-- (97_other_ddl.sql) are read from the catalogs of one, and made on the new one. PostgreSQL's own functions write them as
-- statements; in which order is found by trying, for what an object needs may have been changed after it was made.

create or replace function shardman.rights_texts(kind text, name text, owner_ oid, acl aclitem[]) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array[format('alter %s %s owner to %I', kind, name, pg_get_userbyid(owner_))]
           || case when acl is null then '{}'
                   else format('revoke all on %s %s from public', case kind when 'view' then 'table' else kind end, name)
                        || array(select format('grant %s on %s %s to %s%s', x.privilege_type, case kind when 'view' then 'table' else kind end, name,
                                               case x.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(x.grantee)) end,
                                               case when x.is_grantable then ' with grant option' else '' end)
                                   from aclexplode(acl) x
                                  -- An older node has no word for it.
                                  where x.privilege_type <> 'MAINTAIN' order by x.grantee, x.privilege_type) end
$$;
comment on function shardman.rights_texts(text, text, oid, aclitem[]) is 'the statements that give an object its owner and its rights';

create or replace function shardman.comment_text(kind text, name text, classid oid, objid oid) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(select format('comment on %s %s is %L', kind, name, d) from obj_description(objid, (select relname from pg_class where oid = classid)) d
                  where d is not null)
$$;
comment on function shardman.comment_text(text, text, oid, oid) is 'the statement that gives an object its comment; none where it has none';

create or replace function shardman.lone_views() returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive uses (view, rel, kind) as materialized (
        -- Of each column that a view takes there is a row.
        select distinct r.ev_class, d.refobjid, c.relkind
          from pg_rewrite r join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
          join pg_class c on c.oid = d.refobjid
         where d.refobjid <> r.ev_class and c.oid >= 16384
    ), plain (rel) as materialized (
        select r.rel from (select distinct u.rel from uses u where u.kind in ('r', 'p', 'f', 'm', 'S') offset 0) as r
         where shardman.sharded_name(r.rel) is null and shardman.part_of(r.rel) is null
           and r.rel not in (select shardman.find_relation(s.relation) from shardman.shared_tables s where shardman.find_relation(s.relation) is not null)
           and not exists (select from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = r.rel and e.deptype = 'e')
    ), lone (view) as (
        select u.view from uses u join plain p on p.rel = u.rel
        union
        select u.view from uses u join lone l on l.view = u.rel
    )
    select l.view from lone l
$$;
comment on function shardman.lone_views() is 'the views that are made of plain tables of this node, directly or through others: they are of no other';

create or replace function shardman.type_text(type_ oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case t.typtype
           when 'e' then format('create type %s as enum (%s)', t.oid::regtype,
                                (select string_agg(quote_literal(enumlabel), ', ' order by enumsortorder) from pg_enum where enumtypid = t.oid))
           when 'c' then format('create type %s as (%s)', t.oid::regtype, (
                select string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                                            case when a.attcollation <> y.typcollation then 'collate ' || a.attcollation::regcollation end), ', ' order by a.attnum)
                  from pg_attribute a join pg_type y on y.oid = a.atttypid where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))
           when 'd' then concat_ws(' ', 'create domain', t.oid::regtype, 'as', format_type(t.typbasetype, t.typtypmod),
                                   case when t.typcollation <> b.typcollation then 'collate ' || t.typcollation::regcollation end,
                                   'default ' || pg_get_expr(t.typdefaultbin, 0), case when t.typnotnull then 'not null' end,
                                   (select string_agg(format('constraint %I %s', o.conname, pg_get_constraintdef(o.oid)), ' ' order by o.conname)
                                      from pg_constraint o where o.contypid = t.oid and o.contype = 'c'))
           when 'r' then (select format('create type %s as range (%s)', t.oid::regtype,
                                        concat_ws(', ', 'subtype = ' || g.rngsubtype::regtype, 'subtype_opclass = ' || format('%I.%I', n.nspname, c.opcname),
                                                  'collation = ' || nullif(g.rngcollation, 0)::regcollation, 'canonical = ' || nullif(g.rngcanonical::oid, 0)::regproc,
                                                  'subtype_diff = ' || nullif(g.rngsubdiff::oid, 0)::regproc, 'multirange_type_name = ' || g.rngmultitypid::regtype))
                            from pg_range g join pg_opclass c on c.oid = g.rngsubopc join pg_namespace n on n.oid = c.opcnamespace where g.rngtypid = t.oid) end
      from pg_type t left join pg_type b on b.oid = t.typbasetype where t.oid = type_
$$;
comment on function shardman.type_text(oid) is 'the statement that makes an enum, a composite or range type, or a domain';

create or replace function shardman.aggregate_text(func oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- PostgreSQL writes none. Those with VARIADIC, moving or ordered sets are not written here either.
    select case when a.aggkind = 'n' and p.provariadic = 0 and a.aggmtransfn = 0 and a.aggsortop = 0
           then format('create aggregate %s (%s)', func::regprocedure, concat_ws(', ',
                'sfunc = ' || a.aggtransfn, 'stype = ' || a.aggtranstype::regtype, 'sspace = ' || nullif(a.aggtransspace, 0),
                'finalfunc = ' || nullif(a.aggfinalfn::oid, 0)::regproc, case when a.aggfinalextra then 'finalfunc_extra' end,
                'finalfunc_modify = ' || case a.aggfinalmodify when 'r' then 'read_only' when 's' then 'shareable' else 'read_write' end,
                'combinefunc = ' || nullif(a.aggcombinefn::oid, 0)::regproc, 'serialfunc = ' || nullif(a.aggserialfn::oid, 0)::regproc,
                'deserialfunc = ' || nullif(a.aggdeserialfn::oid, 0)::regproc, 'initcond = ' || quote_literal(a.agginitval),
                'parallel = ' || case p.proparallel when 's' then 'safe' when 'r' then 'restricted' else 'unsafe' end)) end
      from pg_aggregate a join pg_proc p on p.oid = a.aggfnoid where a.aggfnoid = func
$$;
comment on function shardman.aggregate_text(oid) is 'the statement that makes an aggregate; null for kinds of which it cannot be written';

create or replace function shardman.spread_objects() returns table (kind text, name text, statements text[])
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    with extended as (select d.classid, d.objid from pg_depend d where d.deptype = 'e')
    select 'schema', quote_ident(n.nspname),
           format('create schema if not exists %I', n.nspname) || shardman.rights_texts('schema', quote_ident(n.nspname), n.nspowner, n.nspacl)
           || shardman.comment_text('schema', quote_ident(n.nspname), 'pg_namespace'::regclass, n.oid)
      from pg_namespace n
     where shardman.spreads_schema(n.nspname) and n.nspname <> 'public'
       and not exists (select from extended e where e.classid = 'pg_namespace'::regclass and e.objid = n.oid)
    union all
    select 'extension', quote_ident(x.extname), array[format('create extension if not exists %I schema %I', x.extname, n.nspname)]
      from pg_extension x join pg_namespace n on n.oid = x.extnamespace where shardman.spreads_schema(null)
    union all
    select k.kind, t.oid::regtype::text,
           shardman.type_text(t.oid) || shardman.rights_texts(k.kind, t.oid::regtype::text, t.typowner, t.typacl)
           || shardman.comment_text(k.kind, t.oid::regtype::text, 'pg_type'::regclass, t.oid)
      from pg_type t join pg_namespace n on n.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid
     cross join lateral (select case t.typtype when 'd' then 'domain' else 'type' end) as k (kind)
     where shardman.spreads_schema(n.nspname) and (t.typtype in ('e', 'd', 'r') or t.typtype = 'c' and c.relkind = 'c')
       and not exists (select from extended e where e.classid = 'pg_type'::regclass and e.objid = t.oid)
    union all
    select k.kind, p.oid::regprocedure::text,
           w.words || shardman.rights_texts(k.kind, p.oid::regprocedure::text, p.proowner, p.proacl)
                   || shardman.comment_text(k.kind, p.oid::regprocedure::text, 'pg_proc'::regclass, p.oid)
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     cross join lateral (select case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end) as k (kind)
     cross join lateral (select case p.prokind when 'a' then shardman.aggregate_text(p.oid) else pg_get_functiondef(p.oid) end) as w (words)
     where shardman.spreads_schema(n.nspname)
       and not exists (select from extended e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
       -- What a range type brings with it.
       and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i')
       -- The trigger functions of shared tables come and go with their copies (98_shared_writes.sql), and a lord that is no worker has none.
       and coalesce(obj_description(p.oid, 'pg_proc'), '') not like 'pg_shardman: writes to the shared table %'
    union all
    select 'view', v.name,
           format('create view %s%s as %s', v.name, ' with (' || array_to_string(c.reloptions, ', ') || ')', rtrim(pg_get_viewdef(c.oid), ';'))
           || array(select format('alter view %s alter column %I set default %s', v.name, a.attname, pg_get_expr(f.adbin, f.adrelid))
                      from pg_attrdef f join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum where f.adrelid = c.oid order by a.attnum)
           || shardman.rights_texts('view', v.name, c.relowner, c.relacl) || shardman.comment_text('view', v.name, 'pg_class'::regclass, c.oid)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     cross join lateral (select format('%I.%I', n.nspname, c.relname)) as v (name)
     where c.relkind = 'v' and shardman.spreads_schema(n.nspname) and c.oid not in (select l from shardman.lone_views() l)
       and not exists (select from extended e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
$$;
comment on function shardman.spread_objects() is
    'what is in no table on this node and the same on all, by the setting spread_ddl: with the statements that make it, its owner, rights and '
    'comment; null where there are none';

create or replace function shardman.objects_below(roots oid[]) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with recursive needed (classid, objid) as (
        select 'pg_class'::regclass::oid, unnest(roots)
        union
        select v.classid, v.objid
          from needed n cross join lateral (
               select 'pg_constraint'::regclass::oid as classid, o.oid as objid from pg_constraint o
                where n.classid = 'pg_class'::regclass and o.conrelid = n.objid or n.classid = 'pg_type'::regclass and o.contypid = n.objid
               union all
               select 'pg_attrdef'::regclass, f.oid from pg_attrdef f where n.classid = 'pg_class'::regclass and f.adrelid = n.objid
               union all
               select 'pg_class'::regclass, i.indexrelid from pg_index i where n.classid = 'pg_class'::regclass and i.indrelid = n.objid
               union all
               select 'pg_trigger'::regclass, g.oid from pg_trigger g where n.classid = 'pg_class'::regclass and g.tgrelid = n.objid and not g.tgisinternal
               union all
               select 'pg_rewrite'::regclass, r.oid from pg_rewrite r where n.classid = 'pg_class'::regclass and r.ev_class = n.objid
               union all
               select 'pg_type'::regclass, t from shardman.types_inside(array[n.objid]) t where n.classid = 'pg_type'::regclass and t >= 16384
               union all
               -- An aggregate of its functions, too.
               select d.refclassid, d.refobjid from pg_depend d
                where d.classid = n.classid and d.objid = n.objid and d.refobjid >= 16384
                  and (d.refclassid in ('pg_type'::regclass, 'pg_proc'::regclass)
                       -- Of a view: those that it is made of.
                       or d.refclassid = 'pg_class'::regclass and (select c.relkind from pg_class c where c.oid = d.refobjid) = 'v')) v
    ), wanted (kind, name) as (
        select distinct 'type', n.objid::regtype::text from needed n where n.classid = 'pg_type'::regclass
        union all
        select distinct 'function', n.objid::regprocedure::text from needed n where n.classid = 'pg_proc'::regclass
        union all
        select 'view', format('%I.%I', s.nspname, c.relname)
          from needed n join pg_class c on n.classid = 'pg_class'::regclass and c.oid = n.objid join pg_namespace s on s.oid = c.relnamespace where c.relkind = 'v'
        union all
        select distinct 'extension', quote_ident(x.extname)
          from needed n join pg_depend d on d.classid = n.classid and d.objid = n.objid and d.deptype = 'e' join pg_extension x on x.oid = d.refobjid
        union all
        select distinct 'schema', quote_ident(s.nspname)
          from needed n
          left join pg_type t on n.classid = 'pg_type'::regclass and t.oid = n.objid
          left join pg_proc p on n.classid = 'pg_proc'::regclass and p.oid = n.objid
          left join pg_class c on n.classid = 'pg_class'::regclass and c.oid = n.objid
          join pg_namespace s on s.oid = coalesce(t.typnamespace, p.pronamespace, c.relnamespace)
    )
    select coalesce(jsonb_agg(to_jsonb(o)), '[]')
      from shardman.spread_objects() o
     where (case o.kind when 'domain' then 'type' when 'procedure' then 'function' when 'aggregate' then 'function' else o.kind end, o.name)
           in (select w.kind, w.name from wanted w)
$$;
comment on function shardman.objects_below(oid[]) is
    'of shardman.spread_objects what these tables or views are made of, as far as catalogs know: types, functions of checks, defaults, triggers, indexes';

create or replace function shardman.all_tables() returns oid[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(select r.oid from (select relation from shardman.tables union all select relation from shardman.shared_tables) t
                  cross join lateral (select shardman.find_relation(t.relation) as oid offset 0) r where r.oid is not null)
$$;
comment on function shardman.all_tables() is 'the sharded and shared tables that this node has';

create or replace function shardman.objects_of_owner(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    -- A superuser has had a way to other nodes from the first: what of his is on one node alone he wants there.
    select coalesce(jsonb_agg(to_jsonb(o)), '[]')
      from pg_class c cross join shardman.spread_objects() o
     where c.oid = rel and shardman.is_ordinary(c.relowner)
       and c.relowner = case when o.kind in ('function', 'procedure', 'aggregate') then (select p.proowner from pg_proc p where p.oid = to_regprocedure(o.name))
                             when o.kind in ('type', 'domain') then (select t.typowner from pg_type t where t.oid = to_regtype(o.name))
                             when o.kind = 'schema' then (select n.nspowner from pg_namespace n where n.oid = to_regnamespace(o.name)) end
       and not exists (select from shardman.shared_tables s
                        where case when o.kind = 'function' then to_regprocedure(o.name) = to_regprocedure(shardman.sql_name(shardman.shared_function(s.relation)) || '()') end)
$$;
comment on function shardman.objects_of_owner(oid) is
    'of shardman.spread_objects the functions, types and schemas of a table''s owner, who had no way to other nodes before his first sharded or shared table';

create or replace function shardman.views_above(relation text) returns oid[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive above (oid) as (
        select shardman.find_relation(relation)
        union
        select r.ev_class
          from above a join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = a.oid and d.classid = 'pg_rewrite'::regclass
          join pg_rewrite r on r.oid = d.objid join pg_class c on c.oid = r.ev_class and c.relkind = 'v'
    )
    select coalesce(array_agg(a.oid), '{}') from above a where a.oid <> shardman.find_relation(relation)
$$;
comment on function shardman.views_above(text) is 'the views that are made of a table, directly or through others';

create or replace function shardman.has_object(kind text, name text) returns bool
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return case when kind = 'schema' then to_regnamespace(name) is not null
                when kind = 'extension' then exists (select from pg_extension where quote_ident(extname) = name)
                when kind = 'view' then to_regclass(name) is not null
                when kind in ('type', 'domain') then to_regtype(name) is not null
                else to_regprocedure(name) is not null end;
exception when undefined_object or invalid_schema_name or undefined_function then
    -- Before 16 where a type of an argument is not there.
    return false;
end
$$;
comment on function shardman.has_object(text, text) is 'whether this node has something of a name that shardman.spread_objects gives; it may be another''s';

create or replace function shardman.make_object(statements text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set check_function_bodies = off as $$
declare
    statement text;
begin
    if statements is null then
        raise exception 'it cannot be written as a statement' using errcode = 'feature_not_supported';
    end if;
    -- To read a literal may be to run a check of its type's owner.
    perform shardman.need_trusted_types(to_jsonb(statements));
    foreach statement in array statements loop
        execute statement;
    end loop;
end
$$;
comment on function shardman.make_object(text[]) is
    'makes what another node has, by the cluster''s role, and gives it to its owner: nobody''s code runs by that';

create or replace function shardman.make_objects(objects jsonb) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    left_  jsonb := (select coalesce(jsonb_agg(o), '[]') from jsonb_array_elements(objects) o where not shardman.has_object(o ->> 'kind', o ->> 'name'));
    failed jsonb;
    object jsonb;
begin
    loop
        failed := '[]';
        for object in select o from jsonb_array_elements(left_) o loop
            begin
                perform shardman.make_object(
                                             (select array_agg(s order by n) from jsonb_array_elements_text(nullif(object -> 'statements', 'null')) with ordinality as u (s, n)));
            exception when others then
                failed := failed || jsonb_build_array(object || jsonb_build_object('why', sqlerrm));
            end;
        end loop;
        -- What one of them made may be what another needs.
        exit when jsonb_array_length(failed) in (0, jsonb_array_length(left_));
        left_ := failed;
    end loop;
    return array(select format('%s %s could not be made: %s', f ->> 'kind', f ->> 'name', f ->> 'why') from jsonb_array_elements(failed) f);
end
$$;
comment on function shardman.make_objects(jsonb) is
    'makes what this node lacks of shardman.spread_objects of another; returns what could not be made, and why. What is there is left as it is';

create or replace function shardman.object_shapes() returns table (relation text, kind text, aspect text, items text[], names text[])
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    -- Each major version writes them in its own way.
    select format('%s %s on PostgreSQL %s', o.kind, o.name, current_setting('server_version_num')::int / 10000), 'object', 'words',
           array[case when length(o.statements[1]) < 300 then o.statements[1]
                      else format('%s … (md5 %s)', left(o.statements[1], 200), md5(o.statements[1])) end],
           array[format('%s %s', o.kind, o.name)]
      from shardman.spread_objects() o
     where o.kind not in ('schema', 'extension') and o.statements is not null and shardman.is_member() and not shardman.is_copy()
$$;
comment on function shardman.object_shapes() is
    'this node: what is in no table, in the form of shardman.shapes. A node that lacks one is none that differs: what a role made that has no '
    'way to other nodes is on one only';
