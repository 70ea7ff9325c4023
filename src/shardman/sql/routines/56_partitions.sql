-- Slots, data tables and routes of single partitions on a node.

create or replace function shardman.table_definition(part_name text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select t.definition from shardman.partitions p join shardman.tables t using (relation)
     where p.part_name = shardman.normal_name(table_definition.part_name) limit 1
$$;
comment on function shardman.table_definition(text) is 'the definition of the table of a partition, by the metadata of this node';

create or replace function shardman.columns_left(definition jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(e order by n), '[]') from jsonb_array_elements(definition -> 'columns') with ordinality as u (e, n)
     where exists (select from pg_attribute a where a.attrelid = shardman.find_relation(definition ->> 'relation') and a.attname = e ->> 'name' and not a.attisdropped)
$$;
comment on function shardman.columns_left(jsonb) is 'the columns of a definition that its table still has on this node';

create or replace function shardman.items_now(definition jsonb, kind text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- The key by which replication tells rows apart goes when another one has come.
    select coalesce(jsonb_agg(e order by n), '[]')
           || coalesce((select jsonb_agg(c.item order by c.name) from shardman.changed_constraints c
                         where (c.relation, c.kind) = (definition ->> 'relation', items_now.kind) and c.item is not null), '[]')
      from jsonb_array_elements(definition -> kind) with ordinality as u (e, n)
     where (e ->> 'identity')::bool
        or not exists (select from shardman.changed_constraints c where (c.relation, c.name) = (definition ->> 'relation', e ->> 'name'))
$$;
comment on function shardman.items_now(jsonb, text) is 'the keys or indexes (kind) of a definition, and what DDL has changed since';

create or replace function shardman.definition_now(t shardman.tables) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when parent is null then t.definition
                else t.definition || jsonb_build_object(
                         'columns', shardman.columns_left(t.definition),
                         'keys', shardman.items_now(t.definition, 'keys'),
                         'indexes', shardman.items_now(t.definition, 'indexes'),
                         'shared_indexes', shardman.shared_indexes_now(parent),
                         'statistics', shardman.redefined_statistics(t, parent)) end
      from shardman.find_relation(t.relation) as parent
$$;
comment on function shardman.definition_now(shardman.tables) is
    'what the metadata say of a table, and what DDL has changed since on this node: they learn of it when what runs on the table has ended';

create or replace function shardman.shared_indexes_now(parent oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('name', i.name, 'unique', i.is_unique, 'sql', i.sql, 'identity', false,
                                                 'clustered', false, 'comment', i.comment) order by i.name), '[]')
      from shardman.own_indexes(parent) i
$$;
comment on function shardman.shared_indexes_now(oid) is 'the indexes that PostgreSQL keeps above all partitions, as a definition has them';

create or replace function shardman.need_definition(part_name text, definition jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    definition := coalesce(definition, (select shardman.definition_now(t) from shardman.partitions p join shardman.tables t using (relation)
                                         where p.part_name = shardman.normal_name(need_definition.part_name) limit 1));
    if definition is null then
        raise exception 'this node knows no partition %', part_name
            using errcode = 'undefined_table', hint = 'See shardman.partitions; the metadata may not have arrived yet.';
    end if;
    perform shardman.need_trusted_types(definition);
    return definition;
end
$$;

create or replace function shardman.make_partition(definition jsonb, parent text, part_name text, modulus int, remainder int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part constant oid := shardman.find_relation(part_name);
begin
    if part is not null then
        if exists (select from pg_class c where c.oid = part and c.relkind = 'p' and not c.relispartition) then
            -- Made for an exchange of partitions (shardman.make_awaited_partition), which puts it in its place when its node commits.
            execute format('lock table only %s in access share mode', part::regclass);
        end if;
        if not exists (select from pg_inherits where inhrelid = part and inhparent = shardman.find_relation(parent)) then
            raise exception 'there is another relation with the name % on this node', part_name
                using errcode = 'duplicate_table', hint = 'Rename it or drop it; the partition appears by itself then.';
        end if;
        return;
    end if;
    perform shardman.drop_keys(shardman.find_relation(parent));
    execute format('create table %s partition of %s for values with (modulus %s, remainder %s) partition by list (%s)',
                   shardman.sql_name(part_name), shardman.sql_name(parent), modulus, remainder, definition ->> 'partition_key');
    perform shardman.follow_parent(shardman.find_relation(part_name), shardman.find_relation(parent));
end
$$;
comment on function shardman.make_partition(jsonb, text, text, int, int) is
    'makes a partition, empty; does nothing where it exists. Who may use the table may use its partitions by name';

create or replace function shardman.partition_check(definition jsonb, parent oid, k int) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- The parent by its name: where a dump is restored it has another oid. PostgreSQL compares this with the partition constraint node for node, collations of calls included, and its
    -- own call has none. Ours would get that of its argument, were it not for the other branch, whose collation
    -- is undecidable. Both are simplified before they are compared, which leaves the same call.
    select format('satisfies_hash_partition(%L::regclass::oid, %s, %s, %s)', parent::regclass, definition ->> 'partitions_count', k,
                  string_agg(case when (e ->> 'collatable')::bool
                                  then format('case when true then %s else coalesce((null::shardman.collations).c, '
                                              '(null::shardman.collations).posix)::%s end', e ->> 'sql', e ->> 'type')
                                  else e ->> 'sql' end, ', ' order by n))
      from jsonb_array_elements(definition -> 'key') with ordinality as u (e, n)
$$;
comment on function shardman.partition_check(jsonb, oid, int) is
    'the partition constraint of partition k as a check that PostgreSQL recognises, so that attaching a data table never scans it';

create or replace function shardman.applies_changes() returns bool
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
    -- Not immutable, and called so: PostgreSQL puts the value in its place wherever it makes a check ready, for one statement at a time, and
    -- only with that gone does it recognise the partition constraint.
    return current_setting('session_replication_role') = 'replica';
end
$$;
comment on function shardman.applies_changes() is
    'whether this session brings changes that another node has checked, as what feeds replicas and copies does';

create or replace function shardman.data_check(partition_check text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$ select format('shardman.applies_changes() or %s', partition_check) $$;
comment on function shardman.data_check(text) is
    'the check of a data table, given its partition constraint. satisfies_hash_partition locks the sharded table; what feeds a replica must not: '
    'DDL waits with that lock for commits, which wait for their replicas';

create or replace function shardman.is_former_check(sql text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    -- CHECK (satisfies_hash_partition('16385'::oid, 12, 3, id)), or with ('acc'::regclass)::oid
    select sql !~ 'shardman\.applies_changes\(\)'
$$;
comment on function shardman.is_former_check(text) is 'whether the check of a data table, as PostgreSQL prints it, is one that version 0.1 made';

create or replace function shardman.renew_check(data oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    former constant text := (select pg_get_expr(conbin, conrelid) from pg_constraint where conrelid = data and conname = 'shardman_partition');
    parent constant regclass := (regexp_match(former, '''([0-9]+)''::oid'))[1]::oid;
begin
    execute format('alter table %s drop constraint shardman_partition, add constraint shardman_partition check (%s) not valid', data::regclass,
                   shardman.data_check(case when parent is null then former
                       else regexp_replace(former, '''[0-9]+''::oid', quote_literal(parent) || '::regclass::oid') end));
end
$$;
comment on function shardman.renew_check(oid) is
    'makes the check of a data table that version 0.1 made as those are that are made now. The check is not valid then';

create or replace function shardman.renew_checks() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    old oid;
begin
    if not exists (select from shardman.problems where subject = 'checks of version 0.1') then
        return;
    end if;
    for old in select conrelid from pg_constraint
                where conname = 'shardman_partition' and contype = 'c' and shardman.is_former_check(pg_get_constraintdef(oid)) loop
        begin
            perform shardman.renew_check(old);
        exception when others then
            null;  -- In use; the next visit tries again.
        end;
    end loop;
end
$$;
comment on function shardman.renew_checks() is 'shardman.renew_check for all data tables, once after an upgrade; waits no longer than lock_timeout for each';

create or replace function shardman.validate_a_check() returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab regclass;
begin
    if not exists (select from shardman.problems where subject = 'checks of version 0.1') then
        return false;
    end if;
    select conrelid into tab from pg_constraint
     where conname = 'shardman_partition' and contype = 'c' and not convalidated limit 1;
    if found then
        execute format('alter table %s validate constraint shardman_partition', tab);
    elsif not exists (select from pg_constraint where conname = 'shardman_partition' and contype = 'c'
                         and shardman.is_former_check(pg_get_constraintdef(oid))) then
        delete from shardman.problems where subject = 'checks of version 0.1';
    end if;
    return tab is not null;
end
$$;
comment on function shardman.validate_a_check() is
    'validates the check of one data table after shardman.renew_checks, so that attaching it never scans it: reads it once, '
    'beside readers and writers. Whether there was one';

do $$
begin
    if exists (select from pg_catalog.pg_constraint where conname = 'shardman_partition' and contype = 'c'
                  and shardman.is_former_check(pg_catalog.pg_get_constraintdef(oid))) then
        insert into shardman.problems (subject, message)
            values ('checks of version 0.1', 'are made anew, so that a dump can be restored and DDL does not wait for replicas')
            on conflict do nothing;
    end if;
end
$$;

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

create or replace function shardman.attached_to(part_name text) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select inhrelid from pg_inherits where inhparent = shardman.find_relation(part_name) limit 1
$$;
comment on function shardman.attached_to(text) is 'what is in a partition: its data table, its route, or null';

create or replace function shardman.attach(part_name text, child text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.attached_to(part_name) is distinct from shardman.find_relation(child) then
        execute format('alter table %s attach partition %s default', shardman.sql_name(part_name), shardman.sql_name(child));
        perform shardman.give_to(shardman.find_relation(child), (select relowner from pg_class where oid = shardman.find_relation(part_name)));
        if child = shardman.data_table(part_name) then
            perform shardman.attached_row_triggers(part_name);
        end if;
    end if;
end
$$;
comment on function shardman.attach(text, text) is
    'puts a data table or a route into its partition, which must be empty; does nothing where it is';

create or replace function shardman.attach_data(part_name text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
    select shardman.attach(part_name, shardman.data_table(part_name))
$$;
comment on function shardman.attach_data(text) is 'puts the data table into the partition, which must be empty; does nothing where it is';

create or replace function shardman.route_columns(part oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
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
          where a.attrelid = part and a.attnum > 0 and not a.attisdropped),
        (select string_agg(format('constraint %I %s', conname, pg_get_constraintdef(oid)), ', ' order by conname)
           from pg_constraint where conrelid = part and contype = 'c'))
$$;
comment on function shardman.route_columns(oid) is 'columns and checks of a partition, as CREATE FOREIGN TABLE wants them for a route';

create or replace function shardman.route_options(part_name text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    p    constant text[] := shardman.relation_parts(part_name);
    most constant int := shardman.setting('fetch_size', '10000');
    rows_ constant int := (select shardman.fetched_at_once(shardman.row_width(x.relation), most, most) from shardman.partitions x
                            where x.part_name = route_options.part_name limit 1);
begin
    return format('options (schema_name %L, table_name %L%s)', p[1], p[2], (select format(', fetch_size %L', rows_) where rows_ < most));
end
$$;
comment on function shardman.route_options(text) is 'options of the route to a partition: what it is called, and how many rows are fetched at once where they are wide';

create or replace function shardman.is_ours(owner oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.rolsuper or r.oid = (select nspowner from pg_namespace where nspname = 'shardman') from pg_roles r where r.oid = owner
$$;
comment on function shardman.is_ours(oid) is
    'whether what belongs to a role may be the cluster''s: the owner of the schema''s, or a superuser''s, who needs no trap';

create or replace function shardman.need_our_server(server text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    owner_ oid;
begin
    select s.srvowner into owner_ from pg_foreign_server s where s.srvname = server and not shardman.is_ours(s.srvowner);
    if found then
        raise exception 'the foreign server % belongs to %', server, quote_ident(pg_get_userbyid(owner_))
            using errcode = 'duplicate_object', hint = format('The name is needed: ALTER SERVER %I RENAME TO ...', server);
    end if;
end
$$;
comment on function shardman.need_our_server(text) is 'raises where a foreign server of this name is a stranger''s: he could let it lead anywhere';

create or replace function shardman.route_taken(part_name text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('a %s %s of %s', case c.relkind when 'v' then 'view' when 'S' then 'sequence' when 'i' then 'index'
                                                  when 'f' then 'foreign table' else 'relation' end,
                  shardman.metadata_name(c.oid), quote_ident(pg_get_userbyid(c.relowner)))
      from pg_class c left join pg_foreign_table f on f.ftrelid = c.oid left join pg_foreign_server s on s.oid = f.ftserver
     where c.oid = shardman.find_relation(shardman.route_table(route_taken.part_name))
       and (s.srvname ~ '^shardman_' and shardman.is_ours(s.srvowner)) is not true
$$;
comment on function shardman.route_taken(text) is 'what has the name of a partition''s route on this node and is none; null when nothing has';

create or replace function shardman.make_route(part_name text, server text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part  constant oid := shardman.find_relation(part_name);
    route constant text := shardman.route_table(part_name);
begin
    if part is null then
        raise exception 'there is no partition % on this node', part_name using errcode = 'undefined_table';
    elsif shardman.route_taken(part_name) is not null then
        raise exception 'this node has %, which is no route', shardman.route_taken(part_name)
            using errcode = 'duplicate_table', hint = 'Rename it or drop it, if it is not needed.';
    end if;
    perform shardman.need_our_server(server);
    execute format('create foreign table %s (%s) server %I %s', shardman.sql_name(route), shardman.route_columns(part),
                   server, shardman.route_options(part_name));
    execute format('alter foreign table %s owner to %I', shardman.sql_name(route),
                   (select pg_get_userbyid(relowner) from pg_class where oid = part));
    perform shardman.leave_to_owner(shardman.find_relation(route));
end
$$;
comment on function shardman.make_route(text, text) is 'a foreign table for the partition on a foreign server, not attached';

create or replace function shardman.fitting_route(part_name text) returns regclass
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    route  constant regclass := shardman.find_relation(shardman.route_table(part_name));
    server name;
begin
    if shardman.route_columns(route) = shardman.route_columns(shardman.find_relation(part_name)) then
        return route;
    end if;
    select s.srvname into strict server from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver where f.ftrelid = route;
    execute format('drop foreign table %s', route);
    perform shardman.make_route(part_name, server);
    return shardman.find_relation(shardman.route_table(part_name));
end
$$;
comment on function shardman.fitting_route(text) is
    'the route of a partition that stands ready and is not attached; it is made anew where DDL of the table has come since';

create or replace function shardman.attach_route(part_name text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
    select shardman.attach(part_name, shardman.route_table(part_name))
$$;
comment on function shardman.attach_route(text) is 'puts the route into the partition, which must be empty; does nothing where it is';

create or replace function shardman.renamed_to(relation_ text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.metadata_name(i.inhparent)
      from shardman.partitions p join pg_inherits i on i.inhrelid = shardman.find_relation(p.part_name)
     where p.relation = relation_ and p.prv is null and i.inhparent is distinct from shardman.find_relation(relation_)
     limit 1
$$;
comment on function shardman.renamed_to(text) is
    'what the table of these partitions is called on this node, where somebody has renamed it; null where there are none';
