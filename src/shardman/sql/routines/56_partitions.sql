-- Slots, data tables and routes of single partitions on a node.

create or replace function shardman.table_definition(part_name text) returns jsonb
language sql stable set search_path = pg_catalog as $$
    select t.definition from shardman.partitions p join shardman.tables t using (relation)
     where p.part_name = shardman.normal_name(table_definition.part_name) limit 1
$$;
comment on function shardman.table_definition(text) is 'the definition of the table of a partition, by the metadata of this node';

create or replace function shardman.need_definition(part_name text, definition jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog as $$
begin
    definition := coalesce(definition, shardman.table_definition(part_name));
    if definition is null then
        raise exception 'this node knows no partition %', part_name
            using errcode = 'undefined_table', hint = 'See shardman.partitions; the metadata may not have arrived yet.';
    end if;
    return definition;
end
$$;

create or replace function shardman.make_slot(definition jsonb, parent text, part_name text, modulus int, remainder int) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    slot constant oid := shardman.find_relation(part_name);
begin
    if slot is not null then
        if not exists (select from pg_inherits where inhrelid = slot and inhparent = shardman.find_relation(parent)) then
            raise exception 'there is another relation with the name % on this node', part_name
                using errcode = 'duplicate_table', hint = 'Rename it or drop it; the partition appears by itself then.';
        end if;
        return;
    end if;
    execute format('create table %s partition of %s for values with (modulus %s, remainder %s) partition by list (%s)',
                   shardman.sql_name(part_name), shardman.sql_name(parent), modulus, remainder, definition ->> 'slot_key');
    perform shardman.try_sql(x) from shardman.privilege_sql(definition, part_name, 'table') as x;
end
$$;
comment on function shardman.make_slot(jsonb, text, text, int, int) is
    'makes a partition''s slot, empty; does nothing where it exists. Who may use the table may use its partitions by name';

create or replace function shardman.partition_check(definition jsonb, parent oid, k int) returns text
language sql stable set search_path = pg_catalog as $$
    -- PostgreSQL compares this with the partition constraint node for node, collations of calls included, and its
    -- own call has none. Ours would get that of its argument, were it not for the other branch, whose collation
    -- is undecidable. Both are simplified before they are compared, which leaves the same call.
    select format('satisfies_hash_partition(%L::oid, %s, %s, %s)', parent, definition ->> 'partitions_count', k,
                  string_agg(case when (e ->> 'collatable')::bool
                                  then format('case when true then %s else coalesce((null::shardman.collations).c, '
                                              '(null::shardman.collations).posix)::%s end', e ->> 'sql', e ->> 'type')
                                  else e ->> 'sql' end, ', ' order by n))
      from jsonb_array_elements(definition -> 'key') with ordinality as u (e, n)
$$;
comment on function shardman.partition_check(jsonb, oid, int) is
    'the partition constraint of slot k as a check that PostgreSQL recognises, so that attaching a data table never scans it';

create or replace function shardman.make_data_table(part_name text, parent text default null, definition jsonb default null,
                                                    keys bool default true) returns void
language plpgsql set search_path = pg_catalog as $$
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
                   shardman.partition_check(def, shardman.find_relation(above), shardman.part_number(part_name)),
                   ' using ' || quote_ident(nullif(def -> 'storage' ->> 'access_method', 'heap')), shardman.storage_sql(def));
    for item in
        select format('alter table %s add constraint %I %s no inherit', data, c ->> 'name', c ->> 'sql')
          from jsonb_array_elements(def -> 'checks') c where (c ->> 'no_inherit')::bool
        union all
        select shardman.column_tuning(def, data)
    loop
        execute item;
    end loop;
    perform shardman.try_sql(x) from shardman.privilege_sql(def, shardman.data_table(part_name), 'table') as x;
    if keys then
        perform shardman.make_identity(part_name, def);
    end if;
end
$$;
comment on function shardman.make_data_table(text, text, jsonb, bool) is
    'makes the data table of a partition, not attached, empty, with the key that replication needs (unless keys is false) and no '
    'other index. parent, definition: while the metadata does not know the partition yet';

create or replace function shardman.is_data_table(relation text) returns bool
language sql stable set search_path = pg_catalog as $$
    select exists (select from pg_constraint
                    where conrelid = shardman.find_relation(relation) and conname = 'shardman_partition' and contype = 'c')
$$;
comment on function shardman.is_data_table(text) is 'whether a table was made by shardman.make_data_table, for it has the check of its partition';

create or replace function shardman.storage_sql(definition jsonb) returns text
language sql immutable set search_path = pg_catalog as $$
    select ' with (' || string_agg(o, ', ') || ')'
      from (select x from jsonb_array_elements_text(nullif(definition -> 'storage' -> 'options', 'null')) as x
            union all
            select 'toast.' || x from jsonb_array_elements_text(nullif(definition -> 'storage' -> 'toast_options', 'null')) as x) as u (o)
$$;
comment on function shardman.storage_sql(jsonb) is 'the WITH clause of data tables';

create or replace function shardman.column_tuning(definition jsonb, data text) returns setof text
language sql immutable set search_path = pg_catalog as $$
    select format('alter table %s alter column %I set statistics %s', data, c ->> 'name', c ->> 'statistics')
      from jsonb_array_elements(definition -> 'columns') c where c ->> 'statistics' is not null
    union all
    select format('alter table %s alter column %I set (%s)', data, c ->> 'name', (select string_agg(o, ', ') from jsonb_array_elements_text(c -> 'options') o))
      from jsonb_array_elements(definition -> 'columns') c where c ->> 'options' is not null
$$;
comment on function shardman.column_tuning(jsonb, text) is 'statistics targets and options of columns, which only matter where rows are';

create or replace function shardman.free_name(schema_name text, wanted text, k int) returns text
language sql stable set search_path = pg_catalog as $$
    -- Taken by a copy that was set aside, or by the user: then one that cannot be.
    select case when shardman.find_relation(shardman.relation_text(schema_name, shardman.numbered_name(wanted, k))) is null
                then shardman.numbered_name(wanted, k)
                else shardman.cut_bytes(wanted, 40 - octet_length('_' || k)) || '_' || left(md5(wanted || clock_timestamp()), 12) || '_' || k end
$$;
comment on function shardman.free_name(text, text, int) is 'what to call an index of data table k: shardman.numbered_name, unless that is taken';

create or replace function shardman.has_index(data oid, wanted text, k int) returns bool
language sql stable set search_path = pg_catalog set standard_conforming_strings = on as $$
    select exists (select from pg_index i join pg_class c on c.oid = i.indexrelid
                    where i.indrelid = data and i.indisvalid
                      and (c.relname = shardman.numbered_name(wanted, k)
                           or starts_with(c.relname, shardman.cut_bytes(wanted, 40 - octet_length('_' || k)) || '_')
                              and regexp_replace(c.relname, '.*_([0-9a-f]{12}_[0-9]+)$', '\1') ~ ('^[0-9a-f]{12}_' || k || '$')))
$$;
comment on function shardman.has_index(oid, text, int) is 'whether data table k has the index that was called so on the plain table';

create or replace function shardman.make_index(part_name text, item jsonb) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    data   constant oid := shardman.find_relation(shardman.data_table(part_name));
    k      constant int := shardman.part_number(part_name);
    schema constant text := (shardman.relation_parts(part_name))[1];
    name   constant text := shardman.free_name(schema, item ->> 'name', k);
begin
    if shardman.has_index(data, item ->> 'name', k) then
        return;
    end if;
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
end
$$;
comment on function shardman.make_index(text, jsonb) is 'one index or key of a definition on a data table; does nothing where it is';

create or replace function shardman.make_identity(part_name text, definition jsonb) returns void
language plpgsql set search_path = pg_catalog as $$
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
language plpgsql set search_path = pg_catalog as $$
declare
    def   constant jsonb := shardman.need_definition(part_name, definition);
    data  constant oid := shardman.find_relation(shardman.data_table(part_name));
    k     constant int := shardman.part_number(part_name);
    item  jsonb;
begin
    if data is null then
        raise exception 'there is no table % on this node', shardman.data_table(part_name) using errcode = 'undefined_table';
    end if;
    perform shardman.make_identity(part_name, def);
    for item in select e from jsonb_array_elements((def -> 'keys') || (def -> 'indexes')) e loop
        perform shardman.make_index(part_name, item);
    end loop;
    for item in select e from jsonb_array_elements(def -> 'statistics') e loop
        perform shardman.make_statistics(data, item, k);
    end loop;
end
$$;
comment on function shardman.make_data_indexes(text, jsonb) is
    'makes all keys, indexes and statistics objects that a data table lacks; safe to repeat';

create or replace function shardman.make_statistics(data oid, item jsonb, k int) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    schema constant text := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = data);
    name   constant text := format('%I.%I', schema, shardman.numbered_name(item ->> 'name', k));
begin
    if exists (select from pg_statistic_ext where stxrelid = data and stxname = shardman.numbered_name(item ->> 'name', k)) then
        return;
    end if;
    execute format('create statistics %s %s on %s from %s', name,
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

create or replace function shardman.attached_to(part_name text) returns oid
language sql stable set search_path = pg_catalog as $$
    select inhrelid from pg_inherits where inhparent = shardman.find_relation(part_name) limit 1
$$;
comment on function shardman.attached_to(text) is 'what is in the slot of a partition: its data table, its route, or null';

create or replace function shardman.attach_data(part_name text) returns void
language plpgsql set search_path = pg_catalog as $$
begin
    if shardman.attached_to(part_name) is distinct from shardman.find_relation(shardman.data_table(part_name)) then
        execute format('alter table %s attach partition %s default', shardman.sql_name(part_name),
                       shardman.sql_name(shardman.data_table(part_name)));
    end if;
end
$$;
comment on function shardman.attach_data(text) is 'puts the data table into the slot, which must be empty; does nothing where it is';

create or replace function shardman.route_columns(slot oid) returns text
language sql stable set search_path = pg_catalog as $$
    select concat_ws(', ',
        (select string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                    case when a.attcollation <> t.typcollation
                         then (select format('collate %I.%I', n.nspname, l.collname)
                                 from pg_collation l join pg_namespace n on n.oid = l.collnamespace where l.oid = a.attcollation) end,
                    case a.attgenerated when 's' then format('generated always as (%s) stored', pg_get_expr(d.adbin, d.adrelid))
                                        when 'v' then format('generated always as (%s) virtual', pg_get_expr(d.adbin, d.adrelid))
                                        else 'default ' || pg_get_expr(d.adbin, d.adrelid) end,
                    case when a.attnotnull then 'not null' end), ', ' order by a.attnum)
           from pg_attribute a join pg_type t on t.oid = a.atttypid
           left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
          where a.attrelid = slot and a.attnum > 0 and not a.attisdropped),
        (select string_agg(format('constraint %I %s', conname, pg_get_constraintdef(oid)), ', ' order by conname)
           from pg_constraint where conrelid = slot and contype = 'c'))
$$;
comment on function shardman.route_columns(oid) is 'columns and checks of a slot, as CREATE FOREIGN TABLE wants them for a route';

create or replace function shardman.route_options(part_name text) returns text
language sql immutable set search_path = pg_catalog as $$
    select format('options (schema_name %L, table_name %L)', p[1], p[2]) from (select shardman.relation_parts(part_name) as p) as r
$$;

create or replace function shardman.make_route(part_name text, server text) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    slot  constant oid := shardman.find_relation(part_name);
    route constant text := shardman.route_table(part_name);
begin
    if slot is null then
        raise exception 'there is no partition % on this node', part_name using errcode = 'undefined_table';
    end if;
    execute format('create foreign table %s (%s) server %I %s', shardman.sql_name(route), shardman.route_columns(slot),
                   server, shardman.route_options(part_name));
    execute format('alter foreign table %s owner to %I', shardman.sql_name(route),
                   (select pg_get_userbyid(relowner) from pg_class where oid = slot));
end
$$;
comment on function shardman.make_route(text, text) is 'a foreign table for the partition on a foreign server, not attached';

create or replace function shardman.attach_route(part_name text) returns void
language plpgsql set search_path = pg_catalog as $$
begin
    if shardman.attached_to(part_name) is distinct from shardman.find_relation(shardman.route_table(part_name)) then
        execute format('alter table %s attach partition %s default', shardman.sql_name(part_name),
                       shardman.sql_name(shardman.route_table(part_name)));
    end if;
end
$$;
comment on function shardman.attach_route(text) is 'puts the route into the slot, which must be empty; does nothing where it is';
