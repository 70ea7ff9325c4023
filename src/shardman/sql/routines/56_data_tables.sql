-- Data tables: the plain tables in which a node has the rows of a partition, with their indexes and statistics objects.

create or replace function shardman.make_data_table(part_name text, parent text default null, definition jsonb default null,
                                                    keys bool default true) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    def   constant jsonb := shardman.need_definition(part_name, definition);
    above constant text := coalesce(parent, def ->> 'relation');
    data  constant text := shardman.sql_name(shardman.data_table(part_name));
    item  text;
begin
    if shardman.find_relation(above) is null then
        raise exception 'there is no table % on this node yet', above using errcode = 'undefined_table';
    end if;
    execute format('create table %s (like %s including defaults including generated including constraints including storage '
                   'including compression, constraint shardman_partition check (%s))%s%s', data, shardman.sql_name(above),
                   shardman.data_check(shardman.partition_check(def, shardman.find_relation(above), shardman.part_number(part_name))),
                   ' using ' || quote_ident(nullif(def -> 'storage' ->> 'access_method', 'heap')), shardman.storage_sql(def));
    perform shardman.drop_late_checks(shardman.find_relation(shardman.data_table(part_name)), shardman.find_relation(above));
    for item in
        select format('alter table %s add constraint %I %s no inherit', data, c ->> 'name', c ->> 'sql')
          from jsonb_array_elements(def -> 'checks') c where (c ->> 'no_inherit')::bool and not shardman.is_late(c)
        union all
        select shardman.column_tuning(def, data)
    loop
        execute item;
    end loop;
    perform shardman.follow_parent(shardman.find_relation(shardman.data_table(part_name)), shardman.find_relation(above));
    if keys then
        perform shardman.make_identity(part_name, def);
    end if;
end
$$;
comment on function shardman.make_data_table(text, text, jsonb, bool) is
    'makes the data table of a partition, not attached, empty, with the key that replication needs (unless keys is false) and no '
    'other index. parent, definition: while the metadata does not know the partition yet';

create or replace function shardman.is_data_table(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_constraint
                    where conrelid = shardman.find_relation(relation) and conname = 'shardman_partition' and contype = 'c')
$$;
comment on function shardman.is_data_table(text) is 'whether a table was made by shardman.make_data_table, for it has the check of its partition';

create or replace function shardman.storage_sql(definition jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select ' with (' || string_agg(o, ', ') || ')'
      from (select x from jsonb_array_elements_text(nullif(definition -> 'storage' -> 'options', 'null')) as x
            union all
            select 'toast.' || x from jsonb_array_elements_text(nullif(definition -> 'storage' -> 'toast_options', 'null')) as x) as u (o)
$$;
comment on function shardman.storage_sql(jsonb) is 'the WITH clause of data tables';

create or replace function shardman.column_tuning(definition jsonb, data text) returns setof text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select format('alter table %s alter column %I set statistics %s', data, c ->> 'name', c ->> 'statistics')
      from jsonb_array_elements(definition -> 'columns') c where c ->> 'statistics' is not null
    union all
    select format('alter table %s alter column %I set (%s)', data, c ->> 'name', (select string_agg(o, ', ') from jsonb_array_elements_text(c -> 'options') o))
      from jsonb_array_elements(definition -> 'columns') c where c ->> 'options' is not null
$$;
comment on function shardman.column_tuning(jsonb, text) is 'statistics targets and options of columns, which only matter where rows are';

create or replace function shardman.other_name(wanted text, k int) returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.cut_bytes(wanted, 40 - octet_length('_' || k)) || '_' || left(md5(wanted || clock_timestamp()), 12) || '_' || k
$$;
comment on function shardman.other_name(text, int) is 'what to call an index of data table k whose name is taken';

create or replace function shardman.is_other_name(name text, wanted text, k int) returns bool
language sql immutable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    select starts_with(name, shardman.cut_bytes(wanted, 40 - octet_length('_' || k)) || '_')
       and regexp_replace(name, '.*_([0-9a-f]{12}_[0-9]+)$', '\1') ~ ('^[0-9a-f]{12}_' || k || '$')
$$;
comment on function shardman.is_other_name(text, text, int) is 'whether a name is one that shardman.other_name gives';

create or replace function shardman.free_name(schema_name text, wanted text, k int) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Taken by a copy that was set aside, or by the user: then one that cannot be.
    select case when shardman.find_relation(shardman.relation_text(schema_name, shardman.numbered_name(wanted, k))) is null
                then shardman.numbered_name(wanted, k)
                else shardman.other_name(wanted, k) end
$$;
comment on function shardman.free_name(text, text, int) is 'what to call an index of data table k: shardman.numbered_name, unless that is taken';

create or replace function shardman.has_index(data oid, wanted text, k int) returns bool
language sql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    select exists (select from pg_index i join pg_class c on c.oid = i.indexrelid
                    where i.indrelid = data and i.indisvalid
                      and (c.relname = shardman.numbered_name(wanted, k)
                           or shardman.is_other_name(c.relname, wanted, k)))
$$;
comment on function shardman.has_index(oid, text, int) is 'whether data table k has the index that was called so on the plain table';

create or replace function shardman.make_index(part_name text, item jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data   constant oid := shardman.find_relation(shardman.data_table(part_name));
    k      constant int := shardman.part_number(part_name);
    schema constant text := (shardman.relation_parts(part_name))[1];
    name   constant text := shardman.free_name(schema, item ->> 'name', k);
    before constant oid := (select relowner from pg_class where oid = data order by age(xmin) limit 1);
begin
    -- The name is free in the snapshot in which we look: who has it has built the index since.
    if shardman.has_index(data, item ->> 'name', k) or to_regclass(format('%I.%I', schema, name)) is not null then
        return;
    end if;
    -- Who owns the table builds its indexes: code of the user's must not run as the cluster's role before it was looked at.
    perform shardman.give_to(data, (select relowner from pg_class where oid = shardman.find_relation(part_name)));
    if item ? 'unique' then
        execute format('create %sindex %I on %s %s', case when (item ->> 'unique')::bool then 'unique ' else '' end, name,
                       data::regclass, item ->> 'sql');
        execute coalesce(format('comment on index %I.%I is ', schema, name) || quote_literal(item ->> 'comment'), 'select');
    else
        execute format('alter table %s add constraint %I %s', data::regclass, name, item ->> 'sql');
        execute coalesce(format('alter index %I.%I set (', schema, name)
                         || (select string_agg(o, ', ') from jsonb_array_elements_text(nullif(item -> 'options', 'null')) o) || ')', 'select');
        execute coalesce(format('comment on constraint %I on %s is ', name, data::regclass) || quote_literal(item ->> 'comment'), 'select');
    end if;
    if (item ->> 'clustered')::bool then
        execute format('alter table %s cluster on %I', data::regclass, name);
    end if;
    perform shardman.give_to(data, before);
end
$$;
comment on function shardman.make_index(text, jsonb) is 'one index or key of a definition on a data table; does nothing where it is';

create or replace function shardman.make_identity(part_name text, definition jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data constant oid := shardman.find_relation(shardman.data_table(part_name));
    item jsonb;
    kind constant text := definition -> 'replica_identity' ->> 'kind';
begin
    for item in
        select e from jsonb_array_elements((definition -> 'keys') || (definition -> 'indexes')) e where (e ->> 'identity')::bool
    loop
        perform shardman.make_index(part_name, item);
    end loop;
    if kind = 'index' then
        execute format('alter table %s replica identity using index %I', data::regclass,
                       (select c.relname from pg_class c where c.oid = shardman.identity_index(data)));
    elsif kind = 'full' then
        execute format('alter table %s replica identity full', data::regclass);
    end if;
end
$$;
comment on function shardman.make_identity(text, jsonb) is 'the key by which replication tells rows of a data table apart';

create or replace function shardman.make_data_indexes(part_name text, definition jsonb default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    def   constant jsonb := shardman.need_definition(part_name, definition);
    known constant jsonb := coalesce(definition, shardman.table_definition(part_name));
    data  constant oid := shardman.find_relation(shardman.data_table(part_name));
    k     constant int := shardman.part_number(part_name);
    item  jsonb;
begin
    if data is null then
        raise exception 'there is no table % on this node', shardman.data_table(part_name) using errcode = 'undefined_table';
    end if;
    perform shardman.make_identity(part_name, def);
    -- Of those that the table still has.
    perform shardman.lay_late_checks(data, jsonb_build_object('checks', (
        select coalesce(jsonb_agg(jsonb_build_object('name', l.name, 'sql', l.sql)), '[]') from shardman.late_checks(shardman.find_relation(def ->> 'relation')) l)));
    for item in
        select e from jsonb_array_elements((def -> 'keys') || (def -> 'indexes') || coalesce(def -> 'shared_indexes', '[]')) e
    loop
        begin
            perform shardman.make_index(part_name, item);
        exception when undefined_column then
            -- It went with a column.
            if shardman.columns_left(known) = known -> 'columns' then
                raise;
            end if;
        end;
    end loop;
    for item in select e from jsonb_array_elements(def -> 'statistics') e loop
        perform shardman.make_statistics(data, item, k);
    end loop;
end
$$;
comment on function shardman.make_data_indexes(text, jsonb) is
    'makes all keys, indexes and statistics objects that a data table lacks, and checks that hold from now on; safe to repeat';

create or replace function shardman.make_statistics(data oid, item jsonb, k int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    schema constant text := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = data limit 1);
    called constant text := shardman.numbered_name(item ->> 'name', k);
    name   text := format('%I.%I', schema, called);
begin
    if exists (select from pg_statistic_ext where stxrelid = data and (stxname = called or shardman.is_other_name(stxname, item ->> 'name', k))) then
        return;
    elsif exists (select from pg_statistic_ext s where s.stxname = called and s.stxnamespace = to_regnamespace(quote_ident(schema))) then
        -- The old table's of a split.
        name := format('%I.%I', schema, shardman.other_name(item ->> 'name', k));
    end if;
    -- A move may have made it after the snapshot in which we look, as an index.
    execute format('create statistics if not exists %s %s on %s from %s', name,
                   -- A single expression has no kinds.
                   coalesce('(' || (item ->> 'kinds') || ')', ''), item ->> 'sql', data::regclass);
    if item ->> 'target' is not null then
        execute format('alter statistics %s set statistics %s', name, item ->> 'target');
    end if;
    if item ->> 'comment' is not null then
        execute format('comment on statistics %s is %L', name, item ->> 'comment');
    end if;
end
$$;
