-- Shared tables: what one is, what keeps a table from becoming one, and how a node gets its copy.
--
-- The table of the first node stays what it is, with all that depends on it: it gets triggers, and its sequences the numbers of
-- this node. Every other node gets a table like it. The triggers write to all copies: see 98_shared_writes.sql.

create or replace function shardman.shared_function(relation text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select shardman.relation_text(p[1], case when octet_length(p[2]) <= 56 then p[2] else shardman.cut_bytes(p[2], 47) || '_' || left(md5(p[2]), 8) end
                                        || '_shared')
      from (select shardman.relation_parts(relation) as p) as r
$$;
comment on function shardman.shared_function(text) is
    'the trigger function of a shared table. It stands beside the table and belongs to its owner, as whom it writes to other nodes';

create or replace function shardman.find_function(name text) returns oid
language plpgsql stable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    p constant text[] := shardman.relation_parts(name);
begin
    return (select f.oid from pg_proc f
             where f.proname = p[2] and f.pronargs = 0 and f.pronamespace = (select n.oid from pg_namespace n where n.nspname = p[1]));
end
$$;
comment on function shardman.find_function(text) is 'a function without arguments, by its name in the metadata; null when there is none';

create or replace function shardman.describe_identities(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('column', a.attname, 'kind', case a.attidentity when 'a' then 'always' else 'by default' end)
                              order by a.attnum), '[]')
      from pg_attribute a where a.attrelid = rel and a.attidentity <> '' and not a.attisdropped
$$;

create or replace function shardman.define_shared(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set standard_conforming_strings = on as $$
    select shardman.define_table(rel, '{}', null, null) - 'row_triggers'
           || jsonb_build_object('foreign_keys', shardman.describe_foreign_keys(rel), 'identities', shardman.describe_identities(rel),
                              'triggers', shardman.describe_triggers(rel))
$$;
comment on function shardman.define_shared(oid) is
    'the definition of a shared table: as that of a sharded one, with foreign_keys [{name, to, sql, comment}], identities [{column, kind}] and '
    'triggers [{name, sql, enabled, comment}]';

create or replace function shardman.shared_shape(relation text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select md5((jsonb_build_object(
               'columns', (select jsonb_agg(c - array['statistics', 'options', 'not_null_name'] order by n)
                             from jsonb_array_elements(d -> 'columns') with ordinality as u (c, n)),
               'sequences', (select jsonb_agg(s ->> 'name' order by s ->> 'name') from jsonb_array_elements(d -> 'sequences') as s))
           || (select jsonb_object_agg(key, d -> key)
                 from unnest(array['checks', 'keys', 'indexes', 'statistics', 'foreign_keys', 'identities', 'triggers', 'owner', 'acl', 'comment', 'row_security']) as key))::text)
      from (select shardman.define_shared(shardman.find_relation(relation)) as d offset 0) as x
$$;
comment on function shardman.shared_shape(text) is 'what copies of a shared table must agree in, as a hash: columns, keys, indexes, rights; null without the table';

create or replace function shardman.shared_obstacles(rel oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (select shardman.metadata_name(rel) as name)
    select shardman.obstacle(format('%s has no primary key, by which other nodes would find its rows', me.name),
                             format('Give it one: ALTER TABLE %s ADD PRIMARY KEY (...)', me.name))
      from me where not exists (select from pg_index i where i.indrelid = rel and i.indisprimary and i.indimmediate and i.indisvalid
                                  and i.indnkeyatts = (select count(*) from shardman.shared_key(rel)))
    union all
    select shardman.obstacle(format('%s has row-level security, which would hide rows from its own copies', me.name),
                             format('Drop its policies, and ALTER TABLE %s DISABLE ROW LEVEL SECURITY', me.name))
      from me, pg_class c where c.oid = rel and (c.relrowsecurity or exists (select from pg_policy p where p.polrelid = rel))
    union all
    select shardman.obstacle(format('the foreign key %s of %s refers to %s, which is not shared', o.conname, me.name, shardman.metadata_name(o.confrelid)),
                             format('Share %s first, or drop the foreign key', shardman.metadata_name(o.confrelid)))
      from me, pg_constraint o
     where o.conrelid = rel and o.contype = 'f' and o.confrelid <> rel
       and not exists (select from shardman.shared_tables s where s.relation = shardman.metadata_name(o.confrelid))
    union all
    select shardman.obstacle(format('there is a function %s already, of which the shared table''s triggers need the name', shardman.shared_function(me.name)),
                             'Rename it')
      from me where shardman.find_function(shardman.shared_function(me.name)) is not null
    union all
    select o from shardman.link_obstacles(rel) as o, me
     where o ->> 'what' not like '% the foreign key %' and o ->> 'what' not like 'the foreign key %' and o ->> 'what' not like '% is in the publication %'
    union all
    select shardman.trigger_obstacles(rel)
    union all
    select shardman.content_obstacles(rel)
    union all
    select shardman.session_obstacles(rel)
    union all
    select shardman.trust_obstacles(rel)
$$;
comment on function shardman.shared_obstacles(oid) is 'what keeps a plain table from being shared, and the way out';

create or replace function shardman.describe_shared(relation text) returns jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set standard_conforming_strings = on as $$
declare
    name      constant text := shardman.normal_name(relation);
    rel       oid := shardman.find_relation(name);
    obstacles jsonb;
    defined   jsonb;
begin
    -- The lord may hear of a new table before the transaction that has made it is committed here, which is what it does last.
    while rel is null and shardman.setting('new_tables', 'plain') = 'shared' and clock_timestamp() < statement_timestamp() + interval '5 s' loop
        perform pg_sleep(0.05);
        rel := shardman.find_relation(name);
    end loop;
    if rel is null then
        return jsonb_build_object('obstacles', jsonb_build_array(shardman.obstacle(
            format('there is no table %s on this node', name), 'Give the node that has it, and its schema unless that is public')));
    end if;
    if shardman.is_made_now(name) then
        -- Looked at when that was done. The ranges of its sequences are those of that moment.
        return jsonb_build_object('obstacles', '[]'::jsonb, 'shape', shardman.shared_shape(name), 'views', to_jsonb(shardman.views_above(name)),
                                  'made_now', to_jsonb((shardman.shared_nodes(name)).nodes),
                                  'definition', (select shardman.define_shared(rel) || jsonb_build_object('sequences', s.definition -> 'sequences')
                                                   from shardman.shared_tables s where s.relation = name));
    end if;
    obstacles := case when shardman.kind_obstacle(rel) is not null
                      then jsonb_build_array(shardman.kind_obstacle(rel) || '{"hint": "Only plain tables can be shared"}')
                      else (select coalesce(jsonb_agg(o), '[]') from shardman.role_obstacles(rel) o) end;
    if obstacles = '[]' then
        select coalesce(jsonb_agg(o), '[]') into obstacles from shardman.shared_obstacles(rel) o;
        defined := shardman.define_shared(rel);
        obstacles := obstacles || (
            select coalesce(jsonb_agg(shardman.obstacle(
                       format('the cluster would read a value of the type %s, and %s in it belongs to %s, who is no superuser',
                              u.named, u.code, quote_ident(u.owner)),
                       format('A superuser who trusts it takes it over on every node: %s', u.way_out))), '[]')
              from shardman.untrusted_types(defined) u);
    end if;
    return jsonb_build_object('obstacles', obstacles, 'definition', defined, 'shape', shardman.shared_shape(name),
                              'views', to_jsonb(shardman.views_above(name)));
end
$$;
comment on function shardman.describe_shared(text) is
    'on the node of a plain table: what keeps it from being shared, and what to make elsewhere. made_now: the nodes that have copies since the transaction that '
    'made it';

create or replace function shardman.is_shared_copy(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_trigger g join shardman.shared_tables t on t.relation = is_shared_copy.relation
                    where g.tgrelid = shardman.find_relation(is_shared_copy.relation) and g.tgname = 'A_shardman_lock'
                      and g.tgfoid = shardman.find_function(shardman.shared_function(is_shared_copy.relation)))
$$;
comment on function shardman.is_shared_copy(text) is 'whether this node has a copy of a shared table, in use or from before it was away';

create or replace function shardman.keeps_shared_copy(relation text) returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    while shardman.is_shared_copy(relation) and clock_timestamp() < statement_timestamp() + interval '5 s' loop
        perform pg_sleep(0.05);
    end loop;
    return shardman.is_shared_copy(relation);
end
$$;
comment on function shardman.keeps_shared_copy(text) is
    'whether this node has a copy of a shared table still, some seconds after the lord has heard that it was dropped: nodes commit one after the other';

create or replace function shardman.drop_shared_references(relation text) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
    o     record;
    again text[] := '{}';
begin
    for o in select c.oid, c.convalidated, c.conrelid::regclass as tab, quote_ident(c.conname) as name, pg_get_constraintdef(c.oid) as def,
                    obj_description(c.oid, 'pg_constraint') as told
               from pg_constraint c
              where c.confrelid = shardman.find_relation(relation) and c.contype = 'f' and c.conrelid <> c.confrelid
                and shardman.is_shared_copy(shardman.metadata_name(c.conrelid)) loop
        -- Rows are there, and the cluster's role would look through them.
        again := again || format('alter table %s add constraint %s %s%s', o.tab, o.name, o.def, case when o.convalidated and not shardman.compares_plainly(o.oid) then ' NOT VALID' end);
        execute format('alter table %s drop constraint %s', o.tab, o.name);
        if o.told is not null then
            again := again || format('comment on constraint %s on %s is %L', o.name, o.tab, o.told);
        end if;
    end loop;
    return again;
end
$$;
comment on function shardman.drop_shared_references(text) is
    'before the copy of a shared table is made anew: drops the foreign keys of other copies that refer to it; returns what makes them again';

create or replace function shardman.shared_name_taken(relation text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when shardman.find_relation(relation) is null or shardman.is_shared_copy(relation) then '{}' else array[relation] end
$$;
comment on function shardman.shared_name_taken(text) is
    'the relation of this node that has the name of a table that is to be shared, and is no copy of it';

create or replace function shardman.shared_dependents(relation text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(distinct what order by what), '{}')
      from (select pg_describe_object(x.classid, x.objid, 0) as what
              from pg_depend x join pg_constraint o on x.classid = 'pg_constraint'::regclass and o.oid = x.objid
             where x.refclassid = 'pg_class'::regclass and x.refobjid = shardman.find_relation(relation) and x.deptype = 'n'
               and o.contype = 'f' and o.conrelid <> x.refobjid
            union all
            select 'view ' || shardman.metadata_name(w.ev_class)
              from pg_depend x join pg_rewrite w on x.classid = 'pg_rewrite'::regclass and w.oid = x.objid
             where x.refclassid = 'pg_class'::regclass and x.refobjid = shardman.find_relation(relation) and x.deptype = 'n') as d
     -- What has the name since the copy was dropped is somebody's plain table.
     where exists (select from pg_trigger g where g.tgrelid = shardman.find_relation(relation) and g.tgname = 'A_shardman_lock')
$$;
comment on function shardman.shared_dependents(text) is 'what on this node is made of a shared table: views, and foreign keys of other tables';

create or replace function shardman.shared_columns(definition jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select string_agg(shardman.column_sql(case when exists (select from jsonb_array_elements(definition -> 'identities') i
                                                             where i ->> 'column' = c ->> 'name') then c - 'default' else c end), E',\n    ' order by n)
      from jsonb_array_elements(definition -> 'columns') with ordinality as u (c, n)
$$;

create or replace function shardman.shared_script(definition jsonb) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (select shardman.sql_name(definition ->> 'relation') as name, definition -> 'schema' ->> 'name' as schema)
    select format(E'create table %s (\n    %s\n)%s%s', me.name, shardman.shared_columns(definition),
                  ' using ' || quote_ident(nullif(definition -> 'storage' ->> 'access_method', 'heap')), shardman.storage_sql(definition)) from me
    union all
    select format('alter table %s add constraint %I %s%s', me.name, c ->> 'name', c ->> 'sql', case when (c ->> 'no_inherit')::bool then ' no inherit' end)
      from me, jsonb_array_elements(definition -> 'checks') c where not shardman.is_late(c)
    union all
    select shardman.column_tuning(definition, me.name) from me
    union all
    select format('alter table %s alter column %I add generated %s as identity (sequence name %s)', me.name, i ->> 'column', i ->> 'kind',
                  shardman.sql_name(s ->> 'name'))
      from me, jsonb_array_elements(definition -> 'identities') i join jsonb_array_elements(definition -> 'sequences') s on s ->> 'column' = i ->> 'column'
    union all
    select format('alter table %s add constraint %I %s', me.name, k ->> 'name', k ->> 'sql') from me, jsonb_array_elements(definition -> 'keys') k
    union all
    select format('create %sindex %I on %s %s', case when (x ->> 'unique')::bool then 'unique ' end, x ->> 'name', me.name, x ->> 'sql')
      from me, jsonb_array_elements(definition -> 'indexes') x
    union all
    select shardman.statistics_script(definition, me.name) from me
    union all
    select format('alter table %s add constraint %I %s', me.name, k ->> 'name', k ->> 'sql') from me, jsonb_array_elements(definition -> 'foreign_keys') k
    union all
    select format('comment on constraint %I on %s is %L', k ->> 'name', me.name, k ->> 'comment')
      from me, jsonb_array_elements((definition -> 'keys') || (definition -> 'foreign_keys')) k where k ->> 'comment' is not null
    union all
    select format('comment on index %I.%I is %L', me.schema, x ->> 'name', x ->> 'comment')
      from me, jsonb_array_elements(definition -> 'indexes') x where x ->> 'comment' is not null
$$;
comment on function shardman.shared_script(jsonb) is 'the statements that make a copy of a shared table, in order, but for sequences of serial columns, and for checks that are not valid, which come behind its rows';

create or replace function shardman.make_shared(definition jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name  constant text := definition ->> 'relation';
    spec  jsonb;
    item  text;
begin
    perform shardman.need_trusted_types(definition);
    if not exists (select from pg_roles r where r.rolname = definition ->> 'owner') then
        raise exception 'there is no role %, who owns it', quote_ident(definition ->> 'owner') using errcode = 'undefined_object';
    end if;
    perform shardman.need_role(r.oid) from pg_roles r where r.rolname = definition ->> 'owner';
    perform shardman.make_schema(definition);
    for spec in select s from jsonb_array_elements(definition -> 'sequences') s
                 where not exists (select from jsonb_array_elements(definition -> 'identities') i where i ->> 'column' = s ->> 'column') loop
        perform shardman.make_sequence(spec, spec ->> 'name');
    end loop;
    for item in select * from shardman.shared_script(definition) loop
        execute item;
    end loop;
    for spec in select s from jsonb_array_elements(definition -> 'sequences') s loop
        if not exists (select from jsonb_array_elements(definition -> 'identities') i where i ->> 'column' = spec ->> 'column') then
            execute format('alter sequence %s owned by %s.%I', shardman.sql_name(spec ->> 'name'), shardman.sql_name(name), spec ->> 'column');
        end if;
        perform shardman.make_sequence(spec, spec ->> 'name');
        perform shardman.leave_to_owner(shardman.find_relation(spec ->> 'name'));
    end loop;
    perform shardman.make_own_triggers(definition);
    -- Who may what is in the definition; what the default privileges of this node have added is not.
    perform shardman.leave_to_owner(shardman.find_relation(name));
    perform shardman.apply_extras(definition, name);
    perform shardman.own_statistics(shardman.find_relation(name));
end
$$;
comment on function shardman.make_shared(jsonb) is 'makes the copy of a shared table that this node does not have, still without rows and triggers';

create or replace function shardman.numbers_given(definition jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_object_agg(s ->> 'name', pg_sequence_last_value(q.seqrelid)), '{}')
      from jsonb_array_elements(definition -> 'sequences') s join pg_sequence q on q.seqrelid = shardman.find_relation(s ->> 'name')
     where pg_sequence_last_value(q.seqrelid) is not null
$$;
comment on function shardman.numbers_given(jsonb) is 'the last number that each sequence of a shared table has given on this node';

create or replace function shardman.go_on_with_numbers(definition jsonb, given jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    spec jsonb;
    seq  pg_sequence;
    top  bigint;
begin
    for spec in select s from jsonb_array_elements(definition -> 'sequences') s loop
        select q.* into seq from pg_sequence q where q.seqrelid = shardman.find_relation(spec ->> 'name');
        execute format('select %s(%I)::bigint from %s where %2$I between %4$s and %5$s', case when seq.seqincrement > 0 then 'max' else 'min' end,
                       spec ->> 'column', shardman.table_itself(definition ->> 'relation')::regclass, seq.seqmin, seq.seqmax) into top;
        -- A row with the last one may be gone by now.
        top := case when seq.seqincrement > 0 then greatest(top, (given ->> (spec ->> 'name'))::bigint) else least(top, (given ->> (spec ->> 'name'))::bigint) end;
        perform setval(seq.seqrelid, top) where top between seq.seqmin and seq.seqmax;
    end loop;
end
$$;
comment on function shardman.go_on_with_numbers(jsonb, jsonb) is
    'the sequences of a copy that was made anew give no number twice: neither one that a row has, nor one that was given before (shardman.numbers_given)';

create or replace function shardman.set_shared_ranges(definition jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.make_sequence(s, s ->> 'name') from jsonb_array_elements(definition -> 'sequences') s
$$;
comment on function shardman.set_shared_ranges(jsonb) is 'gives the sequences of a shared table the numbers of this node';

create or replace function shardman.drop_shared_function(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.find_function(shardman.shared_function(relation)) is not null then
        perform set_config('shardman.ddl_busy', 'on', true);
        execute format('drop function %s() cascade', shardman.sql_name(shardman.shared_function(relation)));
        perform shardman.free_triggers(shardman.find_relation(relation));
        perform set_config('shardman.ddl_busy', '', true);
    end if;
end
$$;
comment on function shardman.drop_shared_function(text) is 'takes from the copy of a shared table on this node what sends its changes to others';

create or replace function shardman.drop_shared_triggers(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.drop_shared_function(relation);
    -- One that was called so before may have them.
    delete from shardman.shared_locks l where not exists (select from shardman.shared_tables s where coalesce(s.definition ->> 'lock', s.relation) = l.relation);
end
$$;
comment on function shardman.drop_shared_triggers(text) is 'makes the copy of a shared table on this node a plain table';

create or replace function shardman.is_a_copy(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_trigger g where g.tgrelid = shardman.find_relation(relation) and g.tgname = 'A_shardman_lock')
$$;
comment on function shardman.is_a_copy(text) is 'whether what has a name on this node is the copy of a shared table, whatever the metadata say';

create or replace function shardman.drop_shared_copy(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform set_config('shardman.ddl_busy', 'on', true);
    if shardman.is_a_copy(relation) then
        perform shardman.drop_references_to(relation);
        execute format('drop table %s', shardman.name_here(relation));
    end if;
    if shardman.find_function(shardman.shared_function(relation)) is not null then
        execute format('drop function %s() cascade', shardman.sql_name(shardman.shared_function(relation)));
    end if;
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.drop_shared_copy(text) is
    'drops the copy of a shared table on this node, and the foreign keys that refer to it; a table that is none stays. Its locks stay, for one that is made anew';

create or replace function shardman.drop_shared(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.drop_shared_copy(relation);
    perform shardman.drop_shared_triggers(relation);
end
$$;
comment on function shardman.drop_shared(text) is 'drops the copy of a shared table on this node; a table that is none stays';

create or replace function shardman.drop_all_shared_triggers() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.drop_shared_triggers(shardman.metadata_name(g.tgrelid)) from pg_trigger g where g.tgname = 'A_shardman_lock'
$$;
comment on function shardman.drop_all_shared_triggers() is 'on a node that leaves its cluster: its copies of shared tables become plain tables';
