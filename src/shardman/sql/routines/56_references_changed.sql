-- Foreign keys that a sharded table gets, or loses, after it was sharded: shardman.add_foreign_key and shardman.drop_foreign_key.
--
-- PostgreSQL makes none above foreign tables, so the text of one is read here, by a pattern that nothing but a foreign key of names fits:
-- what makes it on the data tables is the cluster's role, so no text of the caller's gets there, only the names that were in it.

create or replace function shardman.constraint_names(list text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array_agg((parse_ident(i))[1] order by n) from unnest(shardman.split_list(list)) with ordinality as u (i, n)
$$;
comment on function shardman.constraint_names(text) is 'the names of a list, as the catalog has them; null of null';

create or replace function shardman.read_reference(definition text) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    word    constant text := '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)';
    list    constant text := word || '(?:\s*,\s*' || word || ')*';
    action  constant text := '(?:no\s+action|restrict|cascade|set\s+null|set\s+default)\M';
    clause  constant text := '(?:match\s+(?:simple|full)\M|on\s+update\s+' || action || '|on\s+delete\s+' || action || '(?:\s*\(\s*' || list || '\s*\))?'
                             || '|(?:not\s+)?deferrable\M|initially\s+(?:immediate|deferred)\M)';
    head    constant text[] := regexp_match(definition, '^\s*foreign\s+key\s*\(\s*(' || list || ')\s*\)\s*references\s+(' || word || '(?:\s*\.\s*' || word
                                                        || ')?)(?:\s*\(\s*(' || list || ')\s*\))?((?:\s*' || clause || ')*)\s*;?\s*$', 'i');
    tail    constant text := head[4];
    deleted constant text[] := regexp_match(tail, 'on\s+delete\s+(' || action || ')(?:\s*\(\s*(' || list || ')\s*\))?', 'i');
begin
    if head is null then
        return null;
    end if;
    return jsonb_build_object(
        'columns', shardman.constraint_names(head[1]), 'to', shardman.known_as(shardman.normal_name(head[2])), 'to_columns', shardman.constraint_names(head[3]),
        'match_full', coalesce(tail ~* 'match\s+full', false),
        'on_update', lower(regexp_replace(coalesce((regexp_match(tail, 'on\s+update\s+(' || action || ')', 'i'))[1], 'no action'), '\s+', ' ', 'g')),
        'on_delete', lower(regexp_replace(coalesce(deleted[1], 'no action'), '\s+', ' ', 'g')),
        'set_columns', shardman.constraint_names(deleted[2]));
end
$$;
comment on function shardman.read_reference(text) is
    'what the text of a foreign key says (foreign key (a) references t (b) on delete ...), names as the catalog has them; null where it is anything '
    'else, or has NOT VALID. Foreign keys of data tables are checked at once, so what it says of deferring is left out';

create or replace function shardman.reference_problem(relation text, name text, read_ jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select p from (
        select 1, format('%s is not a sharded table', relation) where not exists (select from shardman.tables t where t.relation = reference_problem.relation)
        union all
        select 2, 'this is not the text of a foreign key' where read_ is null
        union all
        select 3, format('a constraint cannot be called %L', name) where octet_length(name) not between 1 and 63
        union all
        select 4, format('%s has a constraint %s already', relation, quote_ident(name))
          from shardman.tables t cross join unnest(array['foreign_keys', 'keys', 'checks']) kind cross join jsonb_array_elements(t.definition -> kind) x
         where t.relation = reference_problem.relation and x ->> 'name' = reference_problem.name
        union all
        select 5, format('%s has no column %s', relation, quote_ident(c))
          from shardman.tables t cross join jsonb_array_elements_text(read_ -> 'columns') c
         where t.relation = reference_problem.relation and shardman.column_type(t.definition, c) is null
        union all
        select 6, format('%s is neither a shared table nor colocated with %s', read_ ->> 'to', relation)
         where not exists (select from shardman.shared_tables s where s.relation = read_ ->> 'to') and not shardman.colocated(relation, read_ ->> 'to')
        union all
        select 7, format('ON %s would change %s, by which rows of %s are distributed', w.event, quote_ident(w.c), relation)
          from (select 'UPDATE', jsonb_array_elements_text(read_ -> 'columns') where read_ ->> 'on_update' in ('cascade', 'set null', 'set default')
                union all
                select 'DELETE', jsonb_array_elements_text(coalesce(nullif(read_ -> 'set_columns', 'null'), read_ -> 'columns')) where read_ ->> 'on_delete' ~ '^set') as w (event, c)
          join shardman.tables t on t.relation = reference_problem.relation
         where not shardman.colocated(relation, read_ ->> 'to')
           and exists (select from jsonb_array_elements(t.definition -> 'key') e
                        where e ->> 'column' = w.c or coalesce(e -> 'uses' ? w.c, false))
        union all
        select 8, 'only ON DELETE SET NULL and SET DEFAULT name columns' where read_ ->> 'set_columns' is not null and read_ ->> 'on_delete' !~ '^set'
    ) as found_ (n, p) order by n limit 1
$$;
comment on function shardman.reference_problem(text, text, jsonb) is 'why a sharded table cannot get a foreign key; null when nothing is in the way so far';

create or replace function shardman.shared_item(name text, read_ jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select jsonb_build_object(
        'name', name, 'to', read_ ->> 'to', 'columns', read_ -> 'columns', 'comment', null,
        'sql', format('FOREIGN KEY (%s) REFERENCES %s%s', shardman.ident_list(read_ -> 'columns'), shardman.sql_name(read_ ->> 'to'),
                      coalesce('(' || shardman.ident_list(nullif(read_ -> 'to_columns', 'null')) || ')', ''))
               || case when (read_ ->> 'match_full')::bool then ' MATCH FULL' else '' end
               || case read_ ->> 'on_update' when 'no action' then '' else ' ON UPDATE ' || upper(read_ ->> 'on_update') end
               || case read_ ->> 'on_delete' when 'no action' then '' else ' ON DELETE ' || upper(read_ ->> 'on_delete') end
               || coalesce(' (' || shardman.ident_list(nullif(read_ -> 'set_columns', 'null')) || ')', ''))
$$;
comment on function shardman.shared_item(text, jsonb) is 'a foreign key to a shared table as an item of a definition; read_: what shardman.read_reference said';

create or replace function shardman.primary_columns(relation text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    select shardman.constraint_names(substring(k ->> 'sql' from '^PRIMARY KEY \((.*?)\)(?: INCLUDE \(.*\))?$'))
      from shardman.tables t cross join jsonb_array_elements(t.definition -> 'keys') k
     where t.relation = primary_columns.relation and k ->> 'sql' ~ '^PRIMARY KEY \('
$$;
comment on function shardman.primary_columns(text) is 'the columns of a sharded table''s primary key; null when it has none';

create or replace function shardman.reference_item(relation text, name text, definition text) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
    read_   constant jsonb := shardman.read_reference(definition);
    problem constant text := shardman.reference_problem(relation, name, read_);
    message text;
    way_out text;
begin
    if problem is not null then
        return jsonb_build_object('problem', problem, 'hint',
            'Write it as foreign key (country) references countries (code) on delete cascade. It refers to a shared table, or has the key in it and '
            'refers to a table that is colocated');
    elsif not shardman.colocated(relation, read_ ->> 'to') then
        return shardman.shared_item(name, read_);
    end if;
    return shardman.inside_reference(
        relation, array(select jsonb_array_elements_text(read_ -> 'columns'))::name[], read_ ->> 'to',
        coalesce(array(select jsonb_array_elements_text(nullif(read_ -> 'to_columns', 'null'))), '{}')::name[]
        || case when read_ ->> 'to_columns' is null then shardman.primary_columns(read_ ->> 'to')::name[] end,
        name::name, (read_ ->> 'on_delete') || coalesce(' (' || shardman.ident_list(nullif(read_ -> 'set_columns', 'null')) || ')', ''),
        read_ ->> 'on_update', (read_ ->> 'match_full')::bool);
exception when sqlstate 'SHM11' or invalid_parameter_value or undefined_table then
    get stacked diagnostics message = message_text, way_out = pg_exception_hint;
    return jsonb_build_object('problem', message, 'hint', rtrim(coalesce(nullif(way_out, ''), 'Change it'), '.'));
end
$$;
comment on function shardman.reference_item(text, text, text) is
    'a foreign key as an item of foreign_keys of the table''s definition, of its text; or problem and hint';

create or replace function shardman.need_references_right(referred text, columns text[]) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    who    constant name := shardman.caller();
    target constant oid := shardman.find_relation(referred);
begin
    if target is null and shardman.may_administer() then
        return;
    elsif target is null then
        raise exception '% is not on this node', referred
            using errcode = 'undefined_table', hint = 'Call this on a worker: who owns the table and may refer to the other is looked up there.';
    elsif not has_table_privilege(who, target, 'references')
          and (columns is null or exists (select from unnest(columns) c
                                         where not coalesce(has_column_privilege(who, target, (select a.attnum from pg_attribute a where a.attrelid = target and a.attname = c and not a.attisdropped),
                                                                                 'references'), false))) then
        raise exception 'permission denied for table %', referred
            using errcode = 'insufficient_privilege', hint = format('Its owner grants it: GRANT REFERENCES ON %s TO %I.', referred, who);
    end if;
end
$$;
comment on function shardman.need_references_right(text, text[]) is
    'raises unless the caller may refer to a table, or to these of its columns; null: none are named, so to all of it';

create or replace function shardman.need_reference(relation text, name text, definition text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    item  constant jsonb := shardman.reference_item(relation, name, definition);
    read_ constant jsonb := shardman.read_reference(definition);
begin
    if item ? 'problem' then
        raise exception '%', item ->> 'problem' using errcode = 'invalid_parameter_value', hint = (item ->> 'hint') || '.';
    end if;
    perform shardman.need_owner(relation);
    perform shardman.need_references_right(read_ ->> 'to', (select array_agg(c) from jsonb_array_elements_text(nullif(read_ -> 'to_columns', 'null')) c));
    return item ->> 'sql';
end
$$;
comment on function shardman.need_reference(text, text, text) is
    'the text of a foreign key as it is handed to the lord; raises unless the caller owns the table and may refer to the other';

create or replace function shardman.remove_reference(part_name text, name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data constant oid := shardman.find_relation(shardman.data_table(part_name));
    o    record;
begin
    -- What DDL said of it before does not count any more.
    delete from shardman.changed_constraints c where (c.relation, c.name) = (shardman.part_relation(shardman.data_table(part_name)), remove_reference.name);
    select c.conname, c.confrelid into o from pg_constraint c where c.conrelid = data and c.contype = 'f' and c.conname = remove_reference.name;
    if found then
        perform shardman.hold_referred(shardman.metadata_name(o.confrelid));
        execute format('alter table %s drop constraint %I', data::regclass, o.conname);
    end if;
end
$$;
comment on function shardman.remove_reference(text, text) is 'drops a foreign key of the data table of a partition, where it has it';

create or replace function shardman.validate_reference(part_name text, name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data   constant oid := shardman.find_relation(shardman.data_table(part_name));
    found_ oid;
begin
    select o.oid into found_ from pg_constraint o where o.conrelid = data and o.contype = 'f' and o.conname = validate_reference.name and not o.convalidated;
    if found then
        perform shardman.need_plain_comparison(found_);
        execute format('alter table %s validate constraint %I', data::regclass, name);
    end if;
end
$$;
comment on function shardman.validate_reference(text, text) is 'reads a data table once, beside readers and writers: raises where a row breaks its foreign key';

create or replace function shardman.breaking_rows(part_name text, name text) returns table (count bigint, example text)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    o       record;
    text_   text;
begin
    select c.* into o from pg_constraint c
     where c.conrelid = shardman.find_relation(shardman.data_table(part_name)) and c.contype = 'f' and c.conname = breaking_rows.name;
    if not found then
        return;
    end if;
    perform shardman.need_plain_comparison(o.oid);
    -- Not the values' casts to text: those may be functions of the types' owners, what writes a value out is not.
    select format('select count(*), min(format(''(%%s)=(%%s)'', %L, concat_ws('', '', %s))) from only %s f where %s and not exists (select from only %s p where %s)',
                  string_agg(quote_ident(a.attname), ', ' order by n), string_agg(format('f.%I', a.attname), ', ' order by n), o.conrelid::regclass,
                  string_agg(format('f.%I is not null', a.attname), case o.confmatchtype when 'f' then ' or ' else ' and ' end order by n), o.confrelid::regclass,
                  string_agg(format('p.%I operator(%I.%s) f.%I', r.attname, s.nspname, q.oprname, a.attname), ' and ' order by n))
      into text_
      from unnest(o.conkey, o.confkey, o.conpfeqop) with ordinality as u (f, p, op, n)
      join pg_attribute a on a.attrelid = o.conrelid and a.attnum = u.f
      join pg_attribute r on r.attrelid = o.confrelid and r.attnum = u.p
      join pg_operator q on q.oid = u.op join pg_namespace s on s.oid = q.oprnamespace;
    execute text_ into count, example;
    return next;
end
$$;
comment on function shardman.breaking_rows(text, text) is 'how many rows of a data table refer to nothing by this foreign key, and one of them';

create or replace function shardman.record_reference(relation text, name text, item jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.tables t
       set definition = t.definition || jsonb_build_object('foreign_keys', (
               select coalesce(jsonb_agg(f order by f ->> 'name'), '[]')
                 from (select f from jsonb_array_elements(t.definition -> 'foreign_keys') f where f ->> 'name' <> record_reference.name
                       union all select item where item is not null) as kept (f)))
     where t.relation = record_reference.relation
$$;
comment on function shardman.record_reference(text, text, jsonb) is
    'lord only: a sharded table has this foreign key from now on, or, where item is null, none of this name';
