-- CREATE, ALTER and DROP STATISTICS of sharded tables, and COMMENT ON them.
--
-- PostgreSQL collects extended statistics of a partitioned table for the table as a whole, and partitions have none of it. So an object of the
-- table is two things: one on the table, on each node, under the name that its owner gave it, and one on each data table and replica, where
-- rows are and most plans are made. The first is the caller's, made by his statement; the others follow it, as those of a table that had
-- some when it was sharded.
--
-- Of what was dropped PostgreSQL leaves no trace, and the metadata have it a moment longer: it is written down until they do
-- (shardman.changed_constraints, its name behind the word statistics, for constraints may be called so).

create or replace function shardman.is_about_statistics(query text, tag text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(tag like '% STATISTICS' or tag = 'COMMENT' and shardman.one_statement(query) ~* '^comment\s+on\s+statistics\M', false)
$$;
comment on function shardman.is_about_statistics(text, text) is 'whether a statement makes, changes or drops extended statistics';

create or replace function shardman.statistics_named(names text[], path text) returns oid[]
language plpgsql volatile set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
    found_ oid[];
begin
    perform set_config('search_path', path, true);
    found_ := array(
        select s.oid from pg_catalog.unnest(names) u cross join lateral (select pg_catalog.parse_ident(u) as p offset 0) as i
          join pg_catalog.pg_statistic_ext s on s.stxname operator(pg_catalog.=) i.p[pg_catalog.cardinality(i.p)]
          join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) s.stxnamespace
         where case when pg_catalog.cardinality(i.p) operator(pg_catalog.=) 2 then n.nspname operator(pg_catalog.=) i.p[1]
                    else pg_catalog.pg_statistics_obj_is_visible(s.oid) end);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    return found_;
end
$$;
comment on function shardman.statistics_named(text[], text) is 'the statistics objects with these names; path: the search_path by which they are read';

create or replace function shardman.statistics_of(query text, tag text, path text) returns oid
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    name_ constant text := '(?:(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[^\W\d][\w$]*))?)';
    list  constant text := (regexp_match(shardman.one_statement(query), replace(replace(case tag
                               when 'ALTER STATISTICS' then '^alter\s+statistics\s+(?:if\s+exists\s+)?(NAME)\s'
                               when 'DROP STATISTICS'  then '^drop\s+statistics\s+(?:if\s+exists\s+)?(NAMES)\s*(?:cascade|restrict)?$'
                               else '^comment\s+on\s+statistics\s+(NAME)\s+is\s' end, 'NAMES', 'NAME(?:\s*,\s*NAME)*'), 'NAME', name_), 'i'))[1];
    rels  oid[];
begin
    rels := array(select distinct s.stxrelid from unnest(shardman.statistics_named(array(select m[1] from regexp_matches(list, '(' || name_ || ')', 'g') as m), path)) o
                    join pg_statistic_ext s on s.oid = o);
    return case when cardinality(rels) = 1 then rels[1] end;
end
$$;
comment on function shardman.statistics_of(text, text, text) is
    'the table whose extended statistics are named in an ALTER, DROP or COMMENT; null where there are none, or those of several tables; path: as for shardman.statistics_named';

create or replace function shardman.known_statistics(relation_ text) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select s from shardman.tables t cross join jsonb_array_elements(t.definition -> 'statistics') s
     where t.relation = relation_
       and not exists (select from shardman.changed_constraints c where (c.relation, c.name) = (relation_, 'statistics ' || (s ->> 'name')))
    union all
    -- What comes from another node is done in REPEATABLE READ, and sees a row that was forgotten since beside the one that it has written.
    select c.item from shardman.changed_constraints c
     where c.relation = relation_ and c.kind = 'statistics' and not c.item ? 'dropped'
       and not exists (select from shardman.changed_constraints d where (d.relation, d.name) = (c.relation, c.name) and d.item ? 'dropped')
$$;
comment on function shardman.known_statistics(text) is 'the extended statistics of a sharded table, by the metadata and what DDL has changed since';

create or replace function shardman.statistics_schema(item jsonb, relation text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    -- Older versions did not write it down.
    select coalesce(item ->> 'schema', (shardman.relation_parts(relation))[1])
$$;
comment on function shardman.statistics_schema(jsonb, text) is 'the schema in which a table''s statistics object of a definition is';

create or replace function shardman.statistics_script(definition jsonb, called text) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with items as (
        select format('%I.%I', shardman.statistics_schema(s, definition ->> 'relation'), s ->> 'name') as name, s, n
          from jsonb_array_elements(definition -> 'statistics') with ordinality as u (s, n)
    )
    -- A single expression has no kinds.
    select format('create statistics %s %s on %s from %s', name, '(' || (s ->> 'kinds') || ')', s ->> 'sql', called) from items
    union all
    select format('alter statistics %s set statistics %s', name, s ->> 'target') from items where s ->> 'target' is not null
    union all
    select format('comment on statistics %s is %L', name, s ->> 'comment') from items where s ->> 'comment' is not null
$$;
comment on function shardman.statistics_script(jsonb, text) is
    'the statements that give a table that is called so the extended statistics of a definition';

create or replace function shardman.own_statistics(rel oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line text;
begin
    -- Where he may make nothing in their schema, he can do without.
    for line in
        select format('alter statistics %I.%I owner to %I', n.nspname, s.stxname, pg_get_userbyid(c.relowner))
          from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace join pg_class c on c.oid = s.stxrelid
         where s.stxrelid = rel and s.stxowner = shardman.our_role() and c.relowner <> s.stxowner
    loop
        perform shardman.try_sql(line);
    end loop;
end
$$;
comment on function shardman.own_statistics(oid) is 'gives the owner of a table those of its extended statistics that the cluster''s role has made';

create or replace function shardman.statistics_lacking(relation_ text, parent oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select k from shardman.known_statistics(relation_) k
     where not exists (select from pg_statistic_ext s where s.stxrelid = parent and s.stxname = k ->> 'name')
$$;
comment on function shardman.statistics_lacking(text, oid) is 'the extended statistics that a sharded table is to have on this node, and has not';

create or replace function shardman.mend_statistics(relation_ text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    parent constant oid := shardman.find_relation(relation_);
    item   jsonb;
    line   text;
begin
    for item in select * from shardman.statistics_lacking(relation_, parent) loop
        perform shardman.need_trusted(array[parent]), shardman.need_trusted_types(jsonb_build_array(item));
        begin
            for line in select * from shardman.statistics_script(jsonb_build_object('relation', relation_, 'statistics', jsonb_build_array(item)), parent::regclass::text) loop
                execute line;
            end loop;
        exception when undefined_column then
            -- It was dropped a moment ago, and the metadata will know.
            continue;
        end;
    end loop;
    perform shardman.own_statistics(parent);
end
$$;
comment on function shardman.mend_statistics(text) is 'gives a sharded table on this node the extended statistics that it lacks';

create or replace function shardman.hold_statistics(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    busy constant text := coalesce(current_setting('shardman.ddl_busy', true), '');
begin
    perform shardman.need_owner(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.mend_statistics(relation) where shardman.called_here(relation) = relation;
    perform set_config('shardman.ddl_busy', busy, true);
end
$$;
comment on function shardman.hold_statistics(text) is
    'the end of the gate, for the owner of a sharded table: it has all its extended statistics, so that what it lacks afterwards was dropped';

create or replace function shardman.lost_now() returns jsonb
language sql volatile set search_path = pg_catalog, pg_temp as $$ select jsonb_build_object('dropped', extract(epoch from clock_timestamp())) $$;
comment on function shardman.lost_now() is 'what is written down of a statistics object that was dropped: when';

create or replace function shardman.are_known(item jsonb, known jsonb, name text) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    -- What was made and dropped again at once is still on its way to the metadata.
    select case when item ? 'dropped'
                then (item ->> 'dropped')::numeric < extract(epoch from clock_timestamp()) - 30 and not exists (select from jsonb_array_elements(known) s where 'statistics ' || (s ->> 'name') = name)
                else exists (select from jsonb_array_elements(known) s where s = item) end
$$;
comment on function shardman.are_known(jsonb, jsonb, text) is 'whether the metadata know what was written down of a statistics object; known: those of the definition';

create or replace function shardman.note_statistics(relation_ text, rel oid) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    with has as materialized (select s from jsonb_array_elements(shardman.describe_statistics(rel)) s),
         known as materialized (select k from shardman.known_statistics(relation_) k)
    insert into shardman.changed_constraints as c (relation, name, kind, item)
    select relation_, 'statistics ' || (k ->> 'name'), 'statistics', shardman.lost_now() from known where k ->> 'name' not in (select s ->> 'name' from has)
    union all
    select relation_, 'statistics ' || (s ->> 'name'), 'statistics', s from has where not exists (select from known where k = s)
        on conflict on constraint changed_constraints_pkey do update set kind = excluded.kind, item = excluded.item
$$;
comment on function shardman.note_statistics(text, oid) is 'after DDL of extended statistics, on each node: writes down what the metadata do not know yet';

create or replace function shardman.note_lost_statistics() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    -- Also those that went with a column.
    insert into shardman.changed_constraints as c (relation, name, kind, item)
    select t.relation, 'statistics ' || d.object_name, 'statistics', shardman.lost_now()
      from pg_event_trigger_dropped_objects() d
     cross join shardman.tables t cross join lateral shardman.known_statistics(t.relation) k
     where d.object_type = 'statistics object' and shardman.is_member() and not shardman.is_copy()
       -- What the cluster drops may have the name, as the plain table of which one was made.
       and (not shardman.is_own_ddl() or current_setting('shardman.ddl', true) = 'spread') and (shardman.statistics_schema(k, t.relation), k ->> 'name') = (d.schema_name, d.object_name)
        on conflict on constraint changed_constraints_pkey do update set kind = 'statistics', item = excluded.item
$$;
comment on function shardman.note_lost_statistics() is 'within a drop: writes down which extended statistics sharded tables have lost';

create or replace function shardman.follow_statistics_on(data oid, k int, wanted jsonb, lost text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set client_min_messages = warning as $$
declare
    item   jsonb;
    former record;
begin
    for former in
        select format('%I.%I', n.nspname, s.stxname) as name, l as was, s.stxname as called, i as described
          from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace
          join jsonb_array_elements(shardman.describe_statistics(data)) i on i ->> 'name' = s.stxname
          join unnest(lost || array(select w ->> 'name' from jsonb_array_elements(wanted) w)) l
            on s.stxname = shardman.numbered_name(l, k) or shardman.is_other_name(s.stxname, l, k)
         where s.stxrelid = data
    loop
        select w into item from jsonb_array_elements(wanted) w
         where w -> 'sql' = former.described -> 'sql' and w -> 'kinds' = former.described -> 'kinds'
           and (w ->> 'name' = former.was or former.was = any (lost)
                and not exists (select from pg_statistic_ext s where s.stxrelid = data and s.stxname = shardman.numbered_name(w ->> 'name', k)))
         order by (w ->> 'name' = former.was) desc limit 1;
        if item is null then
            execute format('drop statistics %s', former.name);
        elsif item ->> 'name' <> former.was then
            execute format('alter statistics %s rename to %I', former.name, shardman.numbered_name(item ->> 'name', k));
        elsif item -> 'target' <> former.described -> 'target' or item -> 'comment' <> former.described -> 'comment' then
            execute format('alter statistics %s set statistics %s', former.name, coalesce((item ->> 'target')::int, -1));
            execute format('comment on statistics %s is %L', former.name, item ->> 'comment');
        end if;
    end loop;
    -- A move may have made one after the snapshot in which we look; by its name it is found all the same. A NOTICE tells nobody anything.
    for former in
        select n.nspname, shardman.numbered_name(l, k) as called
          from pg_class c join pg_namespace n on n.oid = c.relnamespace cross join unnest(lost) l
         where c.oid = data and not exists (select from pg_statistic_ext s where (s.stxnamespace, s.stxname) = (n.oid, shardman.numbered_name(l, k)))
    loop
        execute format('drop statistics if exists %I.%I', former.nspname, former.called);
    end loop;
    for item in select w from jsonb_array_elements(wanted) w loop
        perform shardman.make_statistics(data, item, k);
    end loop;
end
$$;
comment on function shardman.follow_statistics_on(oid, int, jsonb, text[]) is
    'gives data table k the extended statistics of its table; lost: those that it is not to have any more';

create or replace function shardman.follow_statistics(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    parent constant oid := shardman.find_relation(relation);
    wanted constant jsonb := shardman.describe_statistics(parent);
    lost   constant text[] := array(select substr(c.name, 12) from shardman.changed_constraints c
                                     where c.relation = follow_statistics.relation and c.kind = 'statistics' and c.item ? 'dropped');
    copy   record;
begin
    if wanted = '[]' and lost = '{}' then
        return;
    end if;
    for copy in
        select d.data, d.part_name from shardman.data_tables_here(parent) d
        union all
        select c, regexp_replace(shardman.metadata_name(c), '_data("?)$', '\1') from shardman.copies_here(relation) c
    loop
        perform shardman.need_trusted(array[parent]), shardman.need_trusted_types(jsonb_build_array(wanted));
        perform shardman.follow_statistics_on(copy.data, shardman.part_number(copy.part_name), wanted, lost);
    end loop;
end
$$;
comment on function shardman.follow_statistics(text) is 'gives data tables and replicas on this node the extended statistics that the table has';

create or replace function shardman.redefined_statistics(t shardman.tables, parent oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.describe_statistics(parent) || coalesce((select jsonb_agg(s) from shardman.statistics_lacking(t.relation, parent) s), '[]')
$$;
comment on function shardman.redefined_statistics(shardman.tables, oid) is 'the extended statistics of a definition as they are now';
