-- What a statement brings into a table is to be the same on every node: types and functions that it did not use before, and constants
-- that were a moment's when it was read.

create or replace function shardman.is_new(row_xmin xid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Subtransactions have later numbers than theirs; what others have committed meanwhile may be among them, and is looked at for nothing.
    select age(row_xmin) <= age(pg_current_xact_id()::xid)
$$;
comment on function shardman.is_new(xid) is 'whether a row of a catalog was written by this transaction, by its xmin';

create or replace function shardman.newly_used(rel oid) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
    with of_table (classid, objid) as (
        select 'pg_class'::regclass::oid, rel
        union all select 'pg_class'::regclass, i.indexrelid from pg_index i where i.indrelid = rel
        union all select 'pg_attrdef'::regclass, f.oid from pg_attrdef f where f.adrelid = rel
        union all select 'pg_constraint'::regclass, o.oid from pg_constraint o where o.conrelid = rel
        union all select 'pg_policy'::regclass, p.oid from pg_policy p where p.polrelid = rel
        union all select 'pg_statistic_ext'::regclass, s.oid from pg_statistic_ext s where s.stxrelid = rel
    ), used (classid, objid) as (
        select distinct d.refclassid, d.refobjid from of_table t join pg_depend d on d.classid = t.classid and d.objid = t.objid
         where d.refobjid >= 16384 and d.refclassid in ('pg_type'::regclass, 'pg_proc'::regclass) and shardman.is_new(d.xmin)
    ), named (kinds, name) as (
        select array['type', 'domain'], t::regtype::text from used u, shardman.types_inside(array[u.objid]) t where u.classid = 'pg_type'::regclass and t >= 16384
        union
        select array['function', 'aggregate'], u.objid::regprocedure::text from used u where u.classid = 'pg_proc'::regclass
    )
    select coalesce(jsonb_agg(jsonb_build_object('kind', o.kind, 'name', o.name, 'statements', to_jsonb(o.statements[:1]))), '[]')
      from named n join shardman.spread_objects() o on o.kind = any (n.kinds) and o.name = n.name
     where exists (select from named)
$$;
comment on function shardman.newly_used(oid) is
    'of shardman.spread_objects the types and functions that a table uses since this transaction; not that of a trigger, which its data tables have';

create or replace function shardman.need_same_words(objects jsonb, major int) returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    other jsonb;
begin
    -- Each major version writes definitions in its own way.
    if major = current_setting('server_version_num')::int / 10000 then
        other := shardman.other_words(objects) -> 0;
    end if;
    if other is not null then
        raise exception 'node % has % otherwise', shardman.my_id(), other ->> 'what'
            using errcode = 'object_not_in_prerequisite_state', detail = format('Here it is: %s; where this was sent: %s', other ->> 'here', other ->> 'there'),
                  hint = 'Make it alike on all nodes first: drop it where it is another, after set shardman.ddl = ''here''; then try again.';
    end if;
end
$$;
comment on function shardman.need_same_words(jsonb, int) is
    'raises where this node has another type or function by a name that a statement of another node uses. major: the version of PostgreSQL there';

create or replace function shardman.ask_same_words(relation text, nodes int[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    used constant jsonb := shardman.newly_used(shardman.find_relation(relation));
begin
    if used <> '[]' then
        perform shardman.through_door(n, format('select shardman.need_same_words(%L, %s)', used, current_setting('server_version_num')::int / 10000), '10s')
           from unnest(nodes) n;
    end if;
end
$$;
comment on function shardman.ask_same_words(text, int[]) is
    'after DDL on the node where it was sent: raises where another has a type or a function that it brings into the table by that name, and defined otherwise';

create or replace function shardman.need_of_same_table(relation text, statement text, tag text, path text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    rel constant oid := shardman.ddl_relation(statement, tag, path);
begin
    if rel <> coalesce(shardman.find_relation(relation), rel) then
        raise exception 'on node % what is named there belongs to %, not to %', shardman.my_id(), rel::regclass, relation
            using errcode = 'object_not_in_prerequisite_state', hint = 'Give that another name there, after set shardman.ddl = ''here''; then try again.';
    end if;
end
$$;
comment on function shardman.need_of_same_table(text, text, text, text) is
    'before a statement of another node about an index of a table: raises where that name is another table''s here';

create or replace function shardman.new_expressions(rel oid) returns table (tree text, words text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select f.adbin::text, pg_get_expr(f.adbin, rel) from pg_attrdef f where f.adrelid = rel and shardman.is_new(f.xmin)
    union all select o.conbin::text, pg_get_expr(o.conbin, rel) from pg_constraint o where o.conrelid = rel and o.contype = 'c' and shardman.is_new(o.xmin)
    union all select i.indpred::text, pg_get_expr(i.indpred, rel) from pg_index i where i.indrelid = rel and shardman.is_new(i.xmin)
    union all select p.polqual::text, pg_get_expr(p.polqual, rel) from pg_policy p where p.polrelid = rel and shardman.is_new(p.xmin)
    union all select p.polwithcheck::text, pg_get_expr(p.polwithcheck, rel) from pg_policy p where p.polrelid = rel and shardman.is_new(p.xmin)
$$;
comment on function shardman.new_expressions(oid) is 'defaults, checks, conditions of indexes and policies that this transaction has given a table: as the catalog keeps them, and in words';

create or replace function shardman.need_no_moment(relation text, query text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    moment constant text := '''\s*(?:now|today|tomorrow|yesterday)(?:\s[^'']*)?''';
    times  constant oid[] := array['date'::regtype, 'time'::regtype, 'timetz'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype];
begin
    if query !~* moment then
        return;
    end if;
    -- What is text has stayed in the words; another has become a time.
    if (select count(*) from regexp_matches(query, moment, 'gi'))
         > (select count(*) from shardman.new_expressions(shardman.find_relation(relation)) e, regexp_matches(e.words, moment, 'gi'))
       and exists (select from shardman.new_expressions(shardman.find_relation(relation)) e
                    where e.tree ~ format('\{CONST :consttype (%s)\M', array_to_string(times, '|'))) then
        raise exception 'a quoted ''now'' or ''today'' is the moment at which a node reads it, and would be another on each copy of %', relation
            using errcode = 'feature_not_supported', hint = 'For the time of each row write now() or CURRENT_DATE; for one and the same moment write the time itself.';
    end if;
end
$$;
comment on function shardman.need_no_moment(text, text) is 'raises where a statement has put the time of its reading into a default, check, index or policy of a table';
