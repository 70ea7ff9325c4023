-- How a sharded table gets another name, or another schema, on all nodes: see docs/commands/rename_table.md.
--
-- Each node does it in two transactions, which are prepared on all nodes before the metadata decide. The first (rename_parts) has the
-- partitions, their data tables and routes; the second (rename_parent) the table itself, by whose name clients
-- come. All nodes commit the first before any commits the second: whoever comes in finds the new partitions' names on every node.
--
-- The metadata come to a node before that or after. Before, what they want has the locks of what is prepared on it, and the names are reserved;
-- after, shardman.renamed_tables keeps the reconciler from making the table anew under its former name.

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
        select wanted union all select r.called from shardman.renamed_relations(relation, wanted) r
        union all
        -- What goes to the other schema with it.
        select shardman.relation_text(me.p[1], c.relname) from me join pg_index i on i.indrelid in (
                   select me.oid union all select shardman.find_relation(r.former) from shardman.renamed_relations(relation, wanted) r)
          join pg_class c on c.oid = i.indexrelid where me.p[1] <> me.f[1]
        union all
        select shardman.relation_text(me.p[1], c.relname) from me cross join lateral shardman.owned_sequences(me.oid) s join pg_class c on c.oid = s.seq where me.p[1] <> me.f[1]
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

create or replace function shardman.renaming_sql(former text, wanted text) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('alter table %s %s', shardman.sql_name(former), case when f.p[1] <> w.p[1] then format('set schema %I', w.p[1]) else format('rename to %I', w.p[2]) end)
      from (select shardman.relation_parts(former) as p) as f, (select shardman.relation_parts(wanted) as p) as w
     where shardman.find_relation(former) is not null
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

create or replace function shardman.forget_names() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.renamed_tables r
     where not exists (select from shardman.tables t where t.relation = r.former) or exists (select from shardman.tables t where t.relation = r.wanted)
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
    insert into shardman.renamed_tables as r (former, wanted) values (relation, rename_parts.wanted)
        on conflict on constraint renamed_tables_pkey do update set wanted = excluded.wanted;
    delete from shardman.renamed_tables r where r.former = rename_parts.wanted;
    update shardman.changed_constraints c set relation = rename_parts.wanted where c.relation = rename_parts.relation;
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
