-- What follows from a change of a sharded table: its replicas get what it got, and the metadata what it is now.

create or replace function shardman.is_constant(expression text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select expression ~ '^\(?(-?[0-9.]+|''([^'']|'''')*''|true|false|NULL)\)?(::[a-z0-9_ ]+(\([0-9, ]+\))?(\[\])?)*$'
$$;
comment on function shardman.is_constant(text) is 'whether an expression, as PostgreSQL writes it, is a literal with casts to PostgreSQL''s own types: it means the same at every '
    'time and place';

create or replace function shardman.is_label(expression text, type oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_enum where enumtypid = type and expression = quote_literal(enumlabel) || '::' || format_type(type, null))
$$;
comment on function shardman.is_label(text, oid) is 'whether an expression, as PostgreSQL writes it, is a value of that enum: it runs nobody''s code';

create or replace function shardman.column_changes(copy oid, parent oid, renamed bool) returns setof text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    former text[] := array(select a.attname from pg_attribute a where a.attrelid = copy and a.attnum > 0 and not a.attisdropped
                            except select a.attname from pg_attribute a where a.attrelid = parent and a.attnum > 0 and not a.attisdropped);
    new_   text[] := array(select a.attname from pg_attribute a where a.attrelid = parent and a.attnum > 0 and not a.attisdropped
                            except select a.attname from pg_attribute a where a.attrelid = copy and a.attnum > 0 and not a.attisdropped);
    col    jsonb;
    value_ text;
begin
    if renamed and cardinality(former) = 1 and cardinality(new_) = 1 then
        return next format('rename column %I to %I', former[1], new_[1]);
        return;
    end if;
    return query select format('drop column %I', f) from unnest(former) f;
    for col in select c from jsonb_array_elements(shardman.describe_columns(parent)) c where c ->> 'name' = any (new_) loop
        value_ := coalesce(col ->> 'default', 'NULL');
        if col ->> 'generated' is null and not shardman.is_constant(value_)
           and not shardman.is_label(value_, (select a.atttypid from pg_attribute a where a.attrelid = parent and a.attname = col ->> 'name')) then
            raise exception 'column % would get other values on each copy of %', quote_ident(col ->> 'name'), shardman.metadata_name(parent)
                using errcode = 'feature_not_supported', hint = 'Add it without a default, set the default, then fill it by UPDATE.';
        end if;
        return next 'add column ' || shardman.column_sql(col || '{"not_null": false}')
                    || case when (col ->> 'not_null')::bool then ' not null' else '' end;
    end loop;
end
$$;
comment on function shardman.column_changes(oid, oid, bool) is
    'the forms of ALTER TABLE that give a replica the columns of its table; renamed: the statement renamed one. Raises where rows that '
    'are there would get values that their primaries do not have';

create or replace function shardman.property_changes(copy oid, parent oid) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with pairs as (
        select p.attname, p as wanted, c as have, pg_get_expr(pd.adbin, pd.adrelid) as wanted_default, pg_get_expr(cd.adbin, cd.adrelid) as default_
          from pg_attribute p join pg_attribute c on c.attrelid = copy and c.attname = p.attname
          left join pg_attrdef pd on pd.adrelid = p.attrelid and pd.adnum = p.attnum
          left join pg_attrdef cd on cd.adrelid = c.attrelid and cd.adnum = c.attnum
         where p.attrelid = parent and p.attnum > 0 and not p.attisdropped
    )
    select format('alter column %I type %s%s', attname, format_type((wanted).atttypid, (wanted).atttypmod),
                  ' collate ' || (select format('%I.%I', n.nspname, l.collname) from pg_collation l join pg_namespace n on n.oid = l.collnamespace
                                   where l.oid = (wanted).attcollation))
      from pairs where ((wanted).atttypid, (wanted).atttypmod, (wanted).attcollation) is distinct from ((have).atttypid, (have).atttypmod, (have).attcollation)
    union all
    select format('alter column %I %s not null', attname, case when (wanted).attnotnull then 'set' else 'drop' end)
      from pairs where (wanted).attnotnull <> (have).attnotnull
    union all
    -- Rows come with all their values. One that is kept would keep what it uses from being dropped.
    select format('alter column %I drop default', attname)
      from pairs where (wanted).attgenerated = '' and default_ is distinct from wanted_default and default_ is not null
    union all
    select format('alter column %I drop expression', attname) from pairs where (wanted).attgenerated = '' and (have).attgenerated <> ''
    union all
    select format('drop constraint %I', h.conname) from pg_constraint h
     where h.conrelid = copy and h.contype = 'c' and h.conname <> 'shardman_partition' and not h.connoinherit
       and not exists (select from pg_constraint w where w.conrelid = parent and w.contype = 'c' and w.conname = h.conname
                          and pg_get_constraintdef(w.oid) = pg_get_constraintdef(h.oid))
    union all
    select format('add constraint %I %s', w.conname, pg_get_constraintdef(w.oid)) from pg_constraint w
     where w.conrelid = parent and w.contype = 'c' and not w.connoinherit
       and not exists (select from pg_constraint h where h.conrelid = copy and h.contype = 'c' and w.conname = h.conname
                          and pg_get_constraintdef(w.oid) = pg_get_constraintdef(h.oid))
$$;
comment on function shardman.property_changes(oid, oid) is
    'the forms of ALTER TABLE that give columns of a replica the properties that they have in its table, and it the checks';

create or replace function shardman.index_definition(index oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select substring(pg_get_indexdef(index) from strpos(pg_get_indexdef(index), ' USING ' || a.amname || ' (') + 1)
      from pg_class c join pg_am a on a.oid = c.relam where c.oid = index
$$;
comment on function shardman.index_definition(oid) is 'an index''s definition from USING on';

create or replace function shardman.own_indexes(rel oid) returns table (name name, is_unique bool, sql text, comment text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relname, i.indisunique, shardman.index_definition(c.oid), obj_description(c.oid, 'pg_class')
      from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = rel and i.indisvalid and not exists (select from pg_constraint o where o.conindid = c.oid and o.contype in ('p', 'u', 'x'))
$$;
comment on function shardman.own_indexes(oid) is 'the indexes of a table that belong to no constraint and are built';

create or replace function shardman.index_changes(relation text, copy oid, parent oid) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- A table may have several that say the same: the first of a copy's is the first of the table's. Those that have a name of the table's stay before others.
    with wanted as (
        select i.*, row_number() over (partition by i.sql, i.is_unique order by i.name) as n from shardman.own_indexes(parent) i
    ), there as (
        select i.*, row_number() over (partition by i.sql, i.is_unique order by w.name is null, w.name, i.name) as n
          from pg_class c cross join shardman.own_indexes(copy) i
          left join wanted w on i.name = shardman.numbered_name(w.name, shardman.part_number(regexp_replace(c.relname, '_data$', '')))
         where c.oid = copy
    )
    -- A move or a new replica may have built it after the snapshot in which we look (on other nodes it is that of our first statement there).
    select format('create %sindex if not exists %I on %s %s', case when w.is_unique then 'unique ' else '' end,
                  shardman.free_name(n.nspname, w.name, shardman.part_number(regexp_replace(c.relname, '_data$', ''))), copy::regclass, w.sql)
      from wanted w, pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = copy and not exists (select from there h where (h.sql, h.is_unique, h.n) = (w.sql, w.is_unique, w.n))
    union all
    select format('drop index %I.%I', n.nspname, h.name)
      from shardman.tables t, there h, pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = copy and t.relation = index_changes.relation
       and (exists (select from jsonb_array_elements(t.definition -> 'shared_indexes') s where s ->> 'sql' = h.sql)
            -- It was made a moment ago, and the metadata have not heard of it.
            or h.sql in (select * from shardman.indexes_before(relation)))
       and not exists (select from jsonb_array_elements(t.definition -> 'indexes') s where s ->> 'sql' = h.sql)
       and not exists (select from wanted w where w.sql = h.sql and (h.is_unique or not w.is_unique and w.n = h.n))
$$;
comment on function shardman.index_changes(text, oid, oid) is 'the statements that give a replica the indexes that its table has as a whole';

create or replace function shardman.follow_table(relation text, renamed bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    parent constant oid := shardman.find_relation(relation);
    copy   oid;
    change text;
begin
    for copy in select * from shardman.copies_here(relation) loop
        perform shardman.need_trusted(array[parent]);
        perform shardman.need_trusted_types(jsonb_build_array(
            shardman.describe_columns(parent), shardman.describe_checks(parent),
            (select jsonb_agg(i.sql) from shardman.own_indexes(parent) i)));
        for change in select * from shardman.column_changes(copy, parent, renamed) loop
            execute format('alter table %s %s', copy::regclass, change);
        end loop;
        for change in select * from shardman.property_changes(copy, parent) loop
            execute format('alter table %s %s', copy::regclass, change);
        end loop;
        for change in select * from shardman.index_changes(relation, copy, parent) loop
            execute change;
        end loop;
    end loop;
    -- Where the table has its primary key a copy that lacks it is one that is being made, or has got it after the snapshot in which we look.
    for copy in
        select d from (select * from shardman.copies_here(relation) union all select d.data from shardman.data_tables_here(parent) d) as x (d)
         where not exists (select from pg_index i where i.indrelid = parent and i.indisprimary)
            or exists (select from pg_class c where c.oid = d and c.relreplident = 'i')
    loop
        perform shardman.keep_identity(copy);
    end loop;
    perform shardman.follow_statistics(relation);
end
$$;
comment on function shardman.follow_table(text, bool) is
    'gives the replicas of a table on this node what the table got, and copies that are being made; renamed: a column was renamed. Where a key went by '
    'which replication tells rows apart, another one does';

create or replace function shardman.keep_identity(data oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- A column takes keys along, and UPDATE and DELETE of what is published fail without one.
    if exists (select from pg_class c
                where c.oid = data and c.relreplident in ('d', 'i')
                  and (not c.relispartition or exists (select from pg_publication_rel p where p.prrelid = data))
                  and not exists (select from pg_index i where i.indrelid = data and (i.indisreplident or c.relreplident = 'd' and i.indisprimary))) then
        perform shardman.choose_identity(data);
    end if;
end
$$;
comment on function shardman.keep_identity(oid) is
    'after DDL: a replica, or a data table that has replicas, whose key is gone by which replication told its rows apart is given another one';

create or replace function shardman.data_for_definition(relation text) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.find_relation(shardman.data_table(p.part_name)) from shardman.partitions p
     where p.relation = data_for_definition.relation and p.owner = shardman.my_id() and p.prv is null
       and shardman.find_relation(shardman.data_table(p.part_name)) is not null
     order by shardman.part_number(p.part_name) limit 1
$$;
comment on function shardman.data_for_definition(text) is 'a data table of this node by which to see what keys and indexes those of a table have';

create or replace function shardman.kept_items(items jsonb, data oid, k int) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(e || case when e ? 'unique' then jsonb_build_object('sql', shardman.index_definition(c.oid))
                                        else jsonb_build_object('sql', pg_get_constraintdef(o.oid)) end order by n), '[]')
      from jsonb_array_elements(items) with ordinality as u (e, n)
      join pg_index i on i.indrelid = data
      join pg_class c on c.oid = i.indexrelid and (c.relname = shardman.numbered_name(e ->> 'name', k) or shardman.is_other_name(c.relname, e ->> 'name', k))
      left join pg_constraint o on o.conindid = c.oid and o.contype in ('p', 'u', 'x')
     where e ? 'unique' or o.oid is not null
$$;
comment on function shardman.kept_items(jsonb, oid, int) is 'of keys or indexes of a definition those that data table k still has, as they are now';

create or replace function shardman.redefined_columns(parent oid, data oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_agg(c || jsonb_build_object('options', d -> 'options', 'statistics', d -> 'statistics', 'storage', d -> 'storage',
                                             'compression', d -> 'compression') order by n)
      from jsonb_array_elements(shardman.describe_columns(parent)) with ordinality as u (c, n)
      left join jsonb_array_elements(shardman.describe_columns(data)) d on d ->> 'name' = c ->> 'name'
$$;
comment on function shardman.redefined_columns(oid, oid) is 'the columns of a parent, stored and analyzed as those of a data table of its';

create or replace function shardman.redefine(relation text) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
    t      shardman.tables;
    parent constant oid := shardman.find_relation(relation);
    data   constant oid := shardman.data_for_definition(relation);
    k      constant int := shardman.part_number(regexp_replace((select c.relname from pg_class c where c.oid = data), '_data$', ''));
    expr   constant text := substring(pg_get_partkeydef(parent) from '^HASH \((.*)\)$');
    key    jsonb;
    def    jsonb;
begin
    select * into t from shardman.tables x where x.relation = redefine.relation;
    if parent is null or data is null or t.definition = '{}' then
        return null;
    end if;
    key := shardman.read_key(parent, expr);
    if key ? 'problem' then
        raise exception '%', key ->> 'problem' using hint = key ->> 'hint';
    end if;
    def := t.definition || key || jsonb_build_object(
        'expr', case when t.definition -> 'key' = key -> 'key' then t.expr else expr end,
        'columns', shardman.redefined_columns(parent, data),
        'storage', t.definition -> 'storage' || (select jsonb_build_object(
                       'options', to_jsonb(c.reloptions), 'toast_options', (select to_jsonb(o.reloptions) from pg_class o where o.oid = c.reltoastrelid))
                                                   from pg_class c where c.oid = data),
        'checks', shardman.describe_checks(parent)
                  || coalesce((select jsonb_agg(c) from jsonb_array_elements(t.definition -> 'checks') c where (c ->> 'no_inherit')::bool), '[]'),
        'keys', (select coalesce(jsonb_agg(e - 'parent_comment'
                                           || coalesce((select jsonb_build_object('parent_comment', obj_description(o.oid, 'pg_constraint'))
                                                          from pg_constraint o where o.conrelid = parent and o.conname = e ->> 'name'
                                                           and obj_description(o.oid, 'pg_constraint') is not null), '{}') order by n), '[]')
                   from jsonb_array_elements(shardman.redefined_keys(t, parent, data, k)) with ordinality as u (e, n)),
        'foreign_keys', shardman.redefined_references(t, data, parent),
        'indexes', shardman.redefined_indexes(t, parent, data, k),
        'shared_indexes', shardman.shared_indexes_now(parent),
        'statistics', shardman.redefined_statistics(t, parent),
        'sequences', shardman.sequences_now(t.relation, t.definition -> 'sequences', false),
        -- In a move it is another one for a while, and none that the table has.
        'replica_identity', case when exists (select from shardman.changed_constraints c where c.relation = t.relation and c.kind in ('keys', 'indexes'))
                                   or shardman.identity_index(data) is null and t.definition -> 'replica_identity' ->> 'kind' <> 'full'
                                 then jsonb_build_object('kind', case (select c.relreplident from pg_class c where c.oid = data) when 'f' then 'full' when 'i' then 'index' else 'default' end)
                                 else t.definition -> 'replica_identity' end,
        'owner', (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = parent),
        'acl', shardman.describe_acl(parent),
        'row_security', shardman.describe_row_security(parent),
        'comment', obj_description(parent, 'pg_class'))
        || shardman.redefined_row_triggers(t, data);
    return jsonb_build_object('definition', def, 'create_sql', shardman.parent_script(def));
end
$$;
comment on function shardman.redefine(text) is
    'on a node with a primary of the table: its definition as it is now, and the script for its parent; null where that cannot be said';

create or replace function shardman.dependents(relation text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    with r as materialized (
        select shardman.find_relation(relation) as oid
        union select l.part from shardman.leaves(shardman.find_relation(relation)) l
        union select l.leaf from shardman.leaves(shardman.find_relation(relation)) l
    )
    select coalesce(array_agg(distinct pg_describe_object(d.classid, d.objid, 0) order by pg_describe_object(d.classid, d.objid, 0)), '{}')
      from r
      join pg_depend x on x.refclassid = 'pg_class'::regclass and x.refobjid = r.oid
     cross join lateral (
           select case when x.classid = 'pg_rewrite'::regclass then 'pg_class'::regclass::oid else x.classid end,
                  case when x.classid = 'pg_rewrite'::regclass then (select w.ev_class from pg_rewrite w where w.oid = x.objid) else x.objid end
     ) as d (classid, objid)
     where x.deptype = 'n' and (x.classid in ('pg_rewrite'::regclass, 'pg_proc'::regclass)
                                or x.classid = 'pg_constraint'::regclass
                                   and exists (select from pg_constraint o where o.oid = x.objid and o.contype = 'f' and o.conrelid not in (select r.oid from r where r.oid is not null)))
$$;
comment on function shardman.dependents(text) is 'what on this node is made of a sharded table, and would have to go with it: views, functions, foreign keys';

create or replace function shardman.drop_sharded(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    -- First what DROP TABLE has put away: a node that commits its part of it behind the others was planned for with the table's own name.
    parent constant oid := (select c.oid from unnest(array[shardman.away(relation), relation]) with ordinality as u (name, n)
                              join pg_class c on c.oid = shardman.find_relation(u.name) where c.relkind = 'p' order by u.n limit 1);
    part   oid;
begin
    if exists (select from shardman.tables t where t.relation = drop_sharded.relation) then
        raise exception '% is a sharded table', relation using hint = 'Drop it with shardman.drop_table.';
    elsif parent is null then
        return;
    end if;
    for part in select l.part from shardman.leaves(parent) l order by l.part loop
        execute format('drop table %s', part::regclass);
    end loop;
    execute format('drop table %s', parent::regclass);
    delete from shardman.problems p where p.subject = 'former table ' || drop_sharded.relation;
end
$$;
comment on function shardman.drop_sharded(text) is 'drops what this node has of a table that the metadata do not name any more, with its rows';
