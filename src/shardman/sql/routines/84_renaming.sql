-- How a sharded table gets another name, or another schema, on all nodes: see docs/commands/rename_table.md.
--
-- Each node does it in two transactions, which are prepared on all nodes before the metadata decide. The first (rename_parts) has the
-- partitions, their data tables and routes; the second (rename_parent) the table itself, by whose name clients
-- come. All nodes commit the first before any commits the second: whoever comes in finds the new partitions' names on every node.
--
-- The metadata come to a node before that or after. Before, what they want has the locks of what is prepared on it, and the names are reserved;
-- after, shardman.renamed_tables keeps the reconciler from making the table anew under its former name.

--
-- ALTER TABLE renames the table itself on all nodes, in its sender's transaction; each node writes that down in shardman.renamed_tables. Until
-- the metadata follow, by the command rename_table, they call it as before: shardman.called_here says what it is called here, and
-- shardman.find_relation finds it. All that bears its name besides stays as it is until then: partitions, and the function of a shared table.

-- Nothing is in it that the catalogs do not say; whoever finds a table reads it.
grant select on shardman.renamed_tables to public;

create or replace function shardman.renamed_relations(relation text, wanted text) returns table (former text, called text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.suffixed(relation, '_' || k || s), shardman.suffixed(wanted, '_' || k || s)
      from shardman.tables t cross join generate_series(0, t.partitions_count - 1) as k cross join unnest(array['', '_data', '_fdw']) as s
     where t.relation = renamed_relations.relation
$$;
comment on function shardman.renamed_relations(text, text) is
    'what the partitions of a table, their data tables and routes are called, and are to be called with it';

create or replace function shardman.rename_obstacles(relation text, wanted text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (
        select c.oid, c.relowner, shardman.relation_parts(wanted) as p, shardman.relation_parts(relation) as f from pg_class c where c.oid = shardman.find_relation(relation)
    ), names (called) as (
        select wanted where shardman.called_here(relation) <> wanted
        union all
        select r.called from shardman.renamed_relations(relation, wanted) r
        union all
        -- What goes to the other schema with it.
        select shardman.relation_text(me.p[1], c.relname) from me join pg_index i on i.indrelid in (
                   select me.oid union all select shardman.find_relation(r.former) from shardman.renamed_relations(relation, wanted) r)
          join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace where me.p[1] not in (me.f[1], n.nspname)
        union all
        select shardman.relation_text(me.p[1], c.relname) from me cross join lateral shardman.owned_sequences(me.oid) s join pg_class c on c.oid = s.seq join pg_namespace n on n.oid = c.relnamespace where me.p[1] not in (me.f[1], n.nspname)
    )
    select coalesce(jsonb_agg(o), '[]') from (
        select shardman.obstacle(format('there is no table %s', relation), 'See what "shardman check" says') where not exists (select from me)
        union all
        select shardman.obstacle(format('there is no schema %s', quote_ident(me.p[1])), format('CREATE SCHEMA %I', me.p[1]))
          from me where to_regnamespace(quote_ident(me.p[1])) is null
        union all
        select shardman.obstacle(format('%s, who owns %s, may not create in the schema %s', quote_ident(pg_get_userbyid(me.relowner)), relation, quote_ident(me.p[1])),
                                 format('GRANT CREATE ON SCHEMA %I TO %I', me.p[1], pg_get_userbyid(me.relowner)))
          from me where to_regnamespace(quote_ident(me.p[1])) is not null and not has_schema_privilege(me.relowner, to_regnamespace(quote_ident(me.p[1]))::oid, 'create')
        union all
        select shardman.obstacle(format('the name %s is too long: with its suffix a data table''s name would have %s bytes, and PostgreSQL cuts names at 63', wanted, n.bytes),
                                 'Choose a shorter one')
          from (select max(octet_length((shardman.relation_parts(called))[2])) as bytes from names) as n where n.bytes > 63
        union all
        select shardman.obstacle(format('names that %s or its partitions would have are taken: %s', wanted, string_agg(n.called, ', ' order by n.called)),
                                 'Rename or drop those')
          from names n cross join lateral (select shardman.relation_parts(n.called) as p) as x
         where shardman.find_relation(n.called) is not null
            or exists (select from pg_type t join pg_namespace s on s.oid = t.typnamespace where (s.nspname, t.typname) = (x.p[1], x.p[2]))
        having count(*) > 0) as found_ (o)
$$;
comment on function shardman.rename_obstacles(text, text) is 'what on this node keeps a sharded table from being called otherwise';

create or replace function shardman.placement_digest(relation text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select md5(concat_ws(' ', (to_jsonb(t) - 'changed_at')::text,
                         (select string_agg((to_jsonb(p) - 'changed_at')::text, ' ' order by p.part_name, p.owner) from shardman.partitions p where p.relation = t.relation)))
      from shardman.tables t where t.relation = placement_digest.relation
$$;
comment on function shardman.placement_digest(text) is 'differs when the metadata of a table do: between nodes, or between two moments';

create or replace function shardman.renamed_definition(definition jsonb, former text, wanted text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with names as (
        select s ->> 'name' as seq, shardman.relation_text((shardman.relation_parts(wanted))[1], (shardman.relation_parts(s ->> 'name'))[2]) as called
          from jsonb_array_elements(definition -> 'sequences') s
    ), own as (
        select jsonb_build_object(
            'relation', wanted,
            -- The same on all nodes, unless it is another.
            'schema', case when (shardman.relation_parts(former))[1] = (shardman.relation_parts(wanted))[1] then definition -> 'schema' else (select jsonb_build_object('name', n.nspname, 'owner', pg_get_userbyid(n.nspowner), 'acl', shardman.acl_json(n.nspacl, n.nspowner),
                                                 'comment', obj_description(n.oid, 'pg_namespace'))
                         from pg_namespace n where n.nspname = (shardman.relation_parts(wanted))[1]) end,
            'sequences', (select coalesce(jsonb_agg(s || jsonb_build_object('name', n.called) order by i), '[]')
                            from jsonb_array_elements(definition -> 'sequences') with ordinality as u (s, i) join names n on n.seq = s ->> 'name'),
            'columns', (select jsonb_agg(c || coalesce((select jsonb_build_object('default', replace(c ->> 'default', shardman.next_value(n.seq), shardman.next_value(n.called)))
                                                          from names n where strpos(c ->> 'default', shardman.next_value(n.seq)) > 0 limit 1), '{}') order by i)
                          from jsonb_array_elements(definition -> 'columns') with ordinality as u (c, i))) as change
    )
    select definition || case when definition ->> 'relation' = former then own.change else '{}' end
           || jsonb_build_object('foreign_keys', (
                  select coalesce(jsonb_agg(case when f ->> 'to' = former
                                                 then f || jsonb_build_object('to', wanted, 'sql', replace(f ->> 'sql', 'REFERENCES ' || shardman.sql_name(former) || '(',
                                                                                                           'REFERENCES ' || shardman.sql_name(wanted) || '('))
                                                 else f end order by i), '[]')
                    from jsonb_array_elements(definition -> 'foreign_keys') with ordinality as u (f, i)))
      from own
$$;
comment on function shardman.renamed_definition(jsonb, text, text) is
    'the definition of a sharded table when it, or another one that it refers to, is called otherwise';

create or replace function shardman.named_as_now(definition jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    known record;
    named jsonb := named_as_now.definition;
begin
    for known in
        select distinct s.relation, f ->> 'to' as former
          from shardman.shared_tables s cross join jsonb_array_elements(named_as_now.definition -> 'foreign_keys') f
         where f ->> 'to' in (s.definition ->> 'former', s.definition ->> 'lock')
           and not exists (select from shardman.shared_tables o where o.relation = f ->> 'to')
    loop
        named := shardman.renamed_definition(named, known.former, known.relation);
    end loop;
    return named;
end
$$;
comment on function shardman.named_as_now(jsonb) is
    'lord only: the definition of a sharded table, with shared ones to which it refers called as the metadata call them: a node may have described it before';

create or replace function shardman.rename_metadata(former text, wanted text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- In one statement, for one refers to the other.
    with renamed as (
        update shardman.tables t set relation = wanted where t.relation = former)
    update shardman.partitions p set relation = wanted, part_name = shardman.suffixed(wanted, '_' || shardman.part_number(p.part_name)) where p.relation = former;
    update shardman.tables t set definition = d.definition, create_sql = shardman.parent_script(d.definition)
      from (select x.relation, shardman.renamed_definition(x.definition, former, wanted) as definition from shardman.tables x) as d
     where d.relation = t.relation and d.definition <> t.definition;
    update shardman.comparisons c set part_name = shardman.suffixed(wanted, '_' || shardman.part_number(c.part_name))
     where c.part_name in (select r.former from shardman.renamed_relations(wanted, former) as r (called, former));
end
$$;
comment on function shardman.rename_metadata(text, text) is 'lord only: in the metadata a sharded table is called otherwise';

create or replace function shardman.naming_sql(what text, former text, wanted text) returns setof text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    with names as (select shardman.relation_parts(former) as f, shardman.relation_parts(wanted) as w)
    select format('alter ' || what || ' set schema %I', f[1], f[2], w[1]) from names where f[1] <> w[1]
    union all
    select format('alter ' || what || ' rename to %I', w[1], f[2], w[2]) from names where f[2] <> w[2]
$$;
comment on function shardman.naming_sql(text, text, text) is 'the statements by which something gets another name and schema; what: its kind, with places for both';

create or replace function shardman.renaming_sql(former text, wanted text) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select s from shardman.naming_sql('table %I.%I', shardman.called_here(former), wanted) s where shardman.find_relation(former) is not null
$$;
comment on function shardman.renaming_sql(text, text) is 'the statement by which a relation of this node gets another name or schema; none where it is not here';

create or replace function shardman.relations_to_rename(relation text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- From above to below, as whoever uses them locks them. PostgreSQL locks no foreign table by itself, and who comes to a route comes through
    -- its partition.
    select array_agg(r.former order by shardman.part_number(regexp_replace(r.former, '_(data|fdw)("?)$', '\2')), r.former)
      from shardman.renamed_relations(relation, relation) r join pg_class c on c.oid = shardman.find_relation(r.former) and c.relkind <> 'f'
$$;
comment on function shardman.relations_to_rename(text) is 'the partitions and data tables of a table that are on this node, to be locked';

create or replace function shardman.is_renamed(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.renamed_tables r where r.former = is_renamed.relation)
$$;
comment on function shardman.is_renamed(text) is 'whether a table of the metadata has another name on this node, of which they are to tell';

create or replace function shardman.is_told(former text, wanted text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    with known (relation) as (select t.relation from shardman.tables t union all select s.relation from shardman.shared_tables s)
    select not exists (select from known k where k.relation = former) or exists (select from known k where k.relation = wanted)
$$;
comment on function shardman.is_told(text, text) is 'whether the metadata of this node need not be told any more that a table is called otherwise';

create or replace function shardman.forget_names() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    -- Locked first and looked at again: a table that goes back to its name writes the same row once more, for metadata that have
    -- come since. Who is just about it has the row.
    held constant text[] := array(select r.former from shardman.renamed_tables r where shardman.is_told(r.former, r.wanted) for update skip locked);
begin
    delete from shardman.renamed_tables r where r.former = any (held) and shardman.is_told(r.former, r.wanted);
end
$$;
comment on function shardman.forget_names() is 'forgets former names that the metadata have no more';

create or replace function shardman.rename_parts(relation text, wanted text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    here record;
    line text;
begin
    perform set_config('shardman.exchanging', 'on', true);
    for here in select r.former, r.called, c.relkind
                  from shardman.renamed_relations(relation, wanted) r join pg_class c on c.oid = shardman.find_relation(r.former) loop
        for line in
            select shardman.renaming_sql(here.former, here.called)
            union all
            select format('alter foreign table %s options (set schema_name %L, set table_name %L)', shardman.sql_name(here.called), p[1], p[2])
              from (select shardman.relation_parts(regexp_replace(here.called, '_fdw("?)$', '\1')) as p) as x where here.relkind = 'f'
        loop
            execute line;
        end loop;
    end loop;
    -- What only this node knows.
    insert into shardman.renamed_tables as r (former, wanted) select relation, rename_parts.wanted
     -- What ALTER TABLE has written stays as it is, without a lock.
     where not exists (select from shardman.renamed_tables x where (x.former, x.wanted) = (rename_parts.relation, rename_parts.wanted))
        on conflict on constraint renamed_tables_pkey do update set wanted = excluded.wanted;
    delete from shardman.renamed_tables r where r.former = rename_parts.wanted;
    update shardman.changed_constraints c set relation = rename_parts.wanted where c.relation = rename_parts.relation;
    update shardman.schema_changes c set target = case c.target when relation then rename_parts.wanted else c.target end,
                                         tables = array_replace(c.tables, relation, rename_parts.wanted)
     where relation in (c.target) or relation = any (c.tables);
    update shardman.dropped_references d set relation = case d.relation when rename_parts.relation then rename_parts.wanted else d.relation end,
                                             referred = case d.referred when rename_parts.relation then rename_parts.wanted else d.referred end
     where rename_parts.relation in (d.relation, d.referred);
end
$$;
comment on function shardman.rename_parts(text, text) is
    'in the cut-over: partitions, data tables and routes of a table on this node are called otherwise';

create or replace function shardman.rename_parent(relation text, wanted text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line text;
begin
    perform set_config('shardman.exchanging', 'on', true);
    for line in select shardman.renaming_sql(relation, wanted) loop
        execute line;
    end loop;
end
$$;
comment on function shardman.rename_parent(text, text) is 'in the cut-over: the table itself is called otherwise on this node';

create or replace function shardman.real_name(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.relation_text(n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = rel
$$;
comment on function shardman.real_name(oid) is 'the name of a relation, whatever the metadata call it';

create or replace function shardman.owned_here(relation text, seq text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- PostgreSQL has it in the schema of its table, always. By DDL it may have another name, of which the metadata do not know yet, or only they.
    with me as (
        select shardman.find_relation(relation) as rel,
               shardman.relation_text((shardman.relation_parts(shardman.called_here(relation)))[1], (shardman.relation_parts(seq))[2]) as name
    )
    select coalesce((select me.name where shardman.table_of_sequence(shardman.find_relation(me.name)) = me.rel),
                    (select shardman.real_name(o.seq) from shardman.owned_sequences(me.rel) o join shardman.sequence_specs(relation) s on s ->> 'column' = o.column_name
                      where s ->> 'name' = owned_here.seq and shardman.find_relation(me.name) is null limit 1),
                    me.name)
      from me
$$;
comment on function shardman.owned_here(text, text) is 'what a sequence of a table of the metadata is called on this node';

create or replace function shardman.need_free_name(relation text, wanted text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    obstacle jsonb;
begin
    select o into obstacle from shardman.name_obstacles(relation, wanted) o limit 1;
    if obstacle is not null then
        raise exception '%', obstacle ->> 'what' using errcode = 'duplicate_table', hint = (obstacle ->> 'hint') || '.';
    end if;
end
$$;
comment on function shardman.need_free_name(text, text) is 'raises where a table of the metadata can have a name only for a moment, for what goes with it is taken';

create or replace function shardman.name_obstacles(relation text, wanted text) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.obstacle(format('the metadata have a table %s still', wanted), 'Wait until shardman.renamed_tables is empty, and try again')
     where wanted <> relation and exists (select from shardman.tables t where t.relation = wanted union all select from shardman.shared_tables s where s.relation = wanted)
    union all
    select shardman.obstacle(format('there is a function %s already, of which the shared table''s triggers need the name', shardman.shared_function(wanted)), 'Rename it')
     where wanted <> relation and exists (select from shardman.shared_tables s where s.relation = name_obstacles.relation)
       and shardman.find_function(shardman.shared_function(wanted)) is not null
$$;
comment on function shardman.name_obstacles(text, text) is 'what besides its own name keeps a table of the metadata from being called otherwise on this node';

create or replace function shardman.note_name(relation text, rel oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name     constant text := shardman.real_name(rel);
    obstacle jsonb;
begin
    -- An old snapshot may have what has just been forgotten: 40001. And what is there already is not to be forgotten now.
    perform from shardman.renamed_tables r where r.former = relation for update;
    if not exists (select from shardman.renamed_tables r where r.former = relation) and name = relation
       or exists (select from shardman.renamed_tables r where (r.former, r.wanted) = (relation, name)) then
        return;
    end if;
    perform shardman.need_free_name(relation, name);
    perform set_config('shardman.ddl_renamed', concat_ws(chr(10), current_setting('shardman.ddl_renamed', true), relation), true);
    delete from shardman.renamed_tables r where r.former = relation and name = relation;
    insert into shardman.renamed_tables as r (former, wanted) select relation, name where name <> relation
        on conflict on constraint renamed_tables_pkey do update set wanted = excluded.wanted;
    select o into obstacle from jsonb_array_elements(shardman.rename_obstacles(relation, name)) o
     where name <> relation and exists (select from shardman.tables t where t.relation = note_name.relation) limit 1;
    if obstacle is not null then
        raise exception '%', obstacle ->> 'what' using errcode = 'duplicate_table', hint = (obstacle ->> 'hint') || '.';
    end if;
end
$$;
comment on function shardman.note_name(text, oid) is 'after ALTER TABLE, on each node: writes down what a table of the metadata is called now';

create or replace function shardman.submit_name(relation text) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.called_here(relation) = relation then
        return false;
    end if;
    perform shardman.submit('rename_table', json_build_object('relation', relation, 'new_name', shardman.called_here(relation), 'follow', true));
    return true;
end
$$;
comment on function shardman.submit_name(text) is
    'after DDL of a table that is called otherwise now: lets the metadata follow, and say what it is; whether that is so';

create or replace function shardman.shared_name_obstacles(relation text, wanted text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(o), '[]') from (
        select shardman.name_obstacles(relation, wanted)
        union all
        select shardman.obstacle(format('there is no schema %s', quote_ident(p[1])), format('CREATE SCHEMA %I', p[1]))
          from shardman.relation_parts(wanted) p where to_regnamespace(quote_ident(p[1])) is null
        union all
        select shardman.obstacle(format('the name %s is taken', wanted), 'Choose another one')
         where shardman.called_here(relation) <> wanted and shardman.find_relation(wanted) is not null) as found_ (o)
$$;
comment on function shardman.shared_name_obstacles(text, text) is 'what on this node keeps a shared table from being called otherwise';

create or replace function shardman.rename_shared_metadata(former text, wanted text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- In one statement, for one refers to the other.
    with renamed as (
        update shardman.shared_tables s set relation = wanted where s.relation = former)
    update shardman.shared_copies c set relation = wanted where c.relation = former;
    update shardman.shared_tables s set definition = d.definition
      from (select x.relation, shardman.renamed_definition(x.definition, former, wanted)
                               || case when x.relation = wanted then jsonb_build_object('former', former, 'lock', coalesce(x.definition ->> 'lock', former)) else '{}' end as definition
              from shardman.shared_tables x) as d
     where d.relation = s.relation and d.definition <> s.definition;
    update shardman.tables t set definition = d.definition, create_sql = shardman.parent_script(d.definition)
      from (select x.relation, shardman.renamed_definition(x.definition, former, wanted) as definition from shardman.tables x) as d
     where d.relation = t.relation and d.definition <> t.definition;
end
$$;
comment on function shardman.rename_shared_metadata(text, text) is 'lord only: in the metadata a shared table is called otherwise; its definition says how before';

create or replace function shardman.is_behind_name(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.shared_tables s
                    where s.relation = is_behind_name.relation and shardman.find_function(shardman.shared_function(s.definition ->> 'former')) is not null
                      and shardman.find_function(shardman.shared_function(s.relation)) is null
                      -- Another table may have the former name by now.
                      and not exists (select from shardman.shared_tables o where o.relation = s.definition ->> 'former'))
$$;
comment on function shardman.is_behind_name(text) is 'whether this node''s copy of a shared table is written through under its former name still';

create or replace function shardman.follow_name(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '300ms' as $$
declare
    before constant text := (select s.definition ->> 'former' from shardman.shared_tables s where s.relation = follow_name.relation);
    rel    oid;
    line   text;
begin
    if not shardman.is_behind_name(relation) then
        return;
    end if;
    select g.tgrelid into rel from pg_trigger g where g.tgfoid = shardman.find_function(shardman.shared_function(before)) and g.tgname = 'A_shardman_lock';
    perform set_config('shardman.ddl_busy', 'on', true);
    for line in
        -- ALTER TABLE may have called it otherwise once more.
        select s from shardman.naming_sql('table %I.%I', shardman.real_name(rel),
                                          coalesce((select r.wanted from shardman.renamed_tables r where r.former = relation), relation)) s
        union all
        select s from shardman.naming_sql('function %I.%I()', shardman.shared_function(before), shardman.shared_function(relation)) s
    loop
        execute line;
    end loop;
    delete from shardman.renamed_tables r where r.former = before;
    perform shardman.lay_shared_function(relation);
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.follow_name(text) is
    'what this node''s copy of a shared table, and its trigger function, are called becomes what the metadata call it by now. Waits for no lock longer than 0.3 s';

create or replace function shardman.try_follow_name(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.follow_name(relation);
exception
    when lock_not_available or deadlock_detected then
        -- Somebody is at work on it: the next visit tries again.
        null;
    when others then
        perform shardman.note_problem(relation, sqlerrm);
end
$$;
comment on function shardman.try_follow_name(text) is 'shardman.follow_name for the reconciler: raises nothing';

create or replace function shardman.is_called(relation text, name text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select relation = name or exists (select from shardman.renamed_tables r where (r.former, r.wanted) = (is_called.relation, is_called.name))
$$;
comment on function shardman.is_called(text, text) is 'whether a table of the metadata has, or just had, a name on this node: of one that was dropped nothing else is left';

create or replace function shardman.free_lock_name(relation text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- No name of a relation has a space outside quotes.
    select case when exists (select from shardman.shared_tables s where s.definition ->> 'lock' = relation)
                then jsonb_build_object('lock', relation || ' ' || gen_random_uuid()) else '{}' end
$$;
comment on function shardman.free_lock_name(text) is
    'lord only, for the definition of a table that becomes shared: another name for its locks, where those of one that was called so have it';

create or replace function shardman.shared_now(relation text) returns text
language sql stable strict security definer parallel safe set search_path = pg_catalog, pg_temp as $$
    select coalesce((select c.relation from shardman.shared_copies c where c.relation = shared_now.relation limit 1),
                    (select s.relation from shardman.shared_tables s where s.definition ->> 'former' = shared_now.relation limit 1),
                    (select s.relation from shardman.renamed_tables r join shardman.shared_tables s on s.relation = r.former where r.wanted = shared_now.relation limit 1),
                    relation)
$$;
comment on function shardman.shared_now(text) is
    'a shared table as the metadata of this node call it now: another node may have heard of another name before this one, or not yet';

create or replace function shardman.shared_lock_name(relation text) returns text
language sql stable strict security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce((select s.definition ->> 'lock' from shardman.shared_tables s where s.relation = n.name), n.name)
      from (select shardman.shared_now(relation) as name offset 0) as n
$$;
comment on function shardman.shared_lock_name(text) is 'under what name the locks of a shared table are kept: its first one, whatever it is called since';

create or replace function shardman.shared_of_lock(lock_name text) returns text
language sql stable strict security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce((select s.relation from shardman.shared_tables s where coalesce(s.definition ->> 'lock', s.relation) = lock_name limit 1), lock_name)
$$;
comment on function shardman.shared_of_lock(text) is 'the shared table whose locks are kept under a name';

create or replace function shardman.await_name(rel oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    -- The setting is the user's to change. Who does so does not wait.
    mine constant text[] := coalesce(string_to_array(current_setting('shardman.ddl_renamed', true), chr(10)), '{}');
    waited bool := false;
begin
    while exists (select from shardman.renamed_tables r
                   where r.wanted = shardman.real_name(rel) and r.former <> all (mine)
                      and exists (select from shardman.tables t where t.relation = r.former union all select from shardman.shared_tables s where s.relation = r.former))
          and current_setting('transaction_isolation') = 'read committed' and clock_timestamp() < statement_timestamp() + interval '5 s' loop
        perform pg_sleep(0.02);
        waited := true;
    end loop;
    if waited then
        -- What the doors read once they read in this whole transaction, so who comes before the metadata finds them too late.
        perform pg_sleep(0.3);
    end if;
end
$$;
comment on function shardman.await_name(oid) is
    'before DDL: waits a moment for the metadata of a table that another transaction has called otherwise; other nodes, too, hear of it just then';

create or replace function shardman.of_partitions(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.relation
      from pg_inherits i join shardman.partitions p on p.part_name = shardman.metadata_name(i.inhrelid)
     where i.inhparent = rel and exists (select from pg_class c where c.oid = rel and c.relkind = 'p' and not c.relispartition)
       and shardman.is_member() and not shardman.is_copy() limit 1
$$;
comment on function shardman.of_partitions(oid) is 'the sharded table that a relation is by its partitions, whatever it is called';

create or replace function shardman.need_known(relation text) returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from shardman.tables t where t.relation = need_known.relation) then
        raise exception 'the metadata of % are on their way to this node', relation
            using errcode = 'lock_not_available', hint = 'Try again.';
    end if;
end
$$;
comment on function shardman.need_known(text) is 'within the gate: raises where this node does not know a sharded table by this name, for another moment or already';
