-- Partitions of sharded tables, and the check of each data table that says which rows are its own.

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

create or replace function shardman.renamed_to(relation_ text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.metadata_name(i.inhparent)
      from shardman.partitions p join pg_inherits i on i.inhrelid = shardman.find_relation(p.part_name)
     where p.relation = relation_ and p.prv is null and i.inhparent is distinct from shardman.find_relation(relation_)
     limit 1
$$;
comment on function shardman.renamed_to(text) is
    'what the table of these partitions is called on this node, where somebody has renamed it; null where there are none';
