-- What only tables with rows have: storage parameters, and how columns are stored and analyzed.
--
-- Of a partitioned table PostgreSQL refuses storage parameters, or takes them and does nothing (toast.*, RESET); what is said of columns it gives to
-- partitions or to none, and never to replicas. So behind the gate a plain table without rows stands in the place of the sharded
-- one (96_stand_in.sql), set as its data tables are. The statement is done to that, by PostgreSQL, with all its checks. What it has changed there is given to
-- the data tables and replicas on all nodes, and to the table what may be set of that: new data tables are made like it.

create or replace view shardman.tuning as
    select c.oid as rel, 'option' as kind, ''::name as col, o.option_name as name, o.option_value as value
      from pg_catalog.pg_class c cross join lateral pg_catalog.pg_options_to_table(c.reloptions) o where c.relkind = 'r'
    union all
    select c.oid, 'option', '', 'toast.' || o.option_name, o.option_value
      from pg_catalog.pg_class c join pg_catalog.pg_class t on t.oid = c.reltoastrelid
     cross join lateral pg_catalog.pg_options_to_table(t.reloptions) o where c.relkind = 'r'
    union all
    select a.attrelid, 'column option', a.attname, o.option_name, o.option_value
      from pg_catalog.pg_attribute a cross join lateral pg_catalog.pg_options_to_table(a.attoptions) o
     -- By name: a server may keep values of its own there, which mean nothing elsewhere.
     where a.attnum > 0 and not a.attisdropped and o.option_name in ('n_distinct', 'n_distinct_inherited')
    union all
    select a.attrelid, 'statistics', a.attname, '', a.attstattarget::text
      from pg_catalog.pg_attribute a where a.attnum > 0 and not a.attisdropped and a.attstattarget >= 0
    union all
    select a.attrelid, 'storage', a.attname, '', case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'x' then 'extended' else 'main' end
      from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
     where a.attnum > 0 and not a.attisdropped and a.attstorage <> t.typstorage
    union all
    select a.attrelid, 'compression', a.attname, '', case a.attcompression when 'l' then 'lz4' else 'pglz' end
      from pg_catalog.pg_attribute a where a.attnum > 0 and not a.attisdropped and a.attcompression <> '';
comment on view shardman.tuning is
    'what is set of tables with rows: storage parameters (kind option), and of their columns options, statistics targets, compression, and storage that is not '
    'the type''s';

create or replace function shardman.tunes(query text, tag text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(tag = 'ALTER TABLE' and shardman.plain_words(query) ~* replace(replace(
        '^alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?WORD(?:\s*\.\s*WORD)?(?:\s*\*)?\s+ACTION(?:\s*,\s*ACTION)*$', 'ACTION',
        '(?:(?:alter\s+(?:column\s+)?WORD\s+)?(?:set|reset)\s*\([^)]*\)|alter\s+(?:column\s+)?WORD\s+set\s+(?:statistics\s+-?\w+|(?:storage|compression)\s+\w+))'),
        'WORD', '(?:[^\W\d][\w$]*)'), false)
$$;
comment on function shardman.tunes(text, text) is 'whether a statement sets storage parameters, or how columns are stored and analyzed, and nothing else';

create or replace function shardman.storage_form(query text, tag text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when tag = 'ALTER TABLE' and not shardman.tunes(query, tag)
                then upper(regexp_replace((regexp_match(shardman.plain_words(query),
                     '(?:^alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?[\w$]+(?:\s*\.\s*[\w$]+)?(?:\s*\*)?\s+|,\s*)'
                     '(replica\s+identity|cluster\s+on|set\s+without\s+cluster|set\s+tablespace|set\s+access\s+method|set\s+(?:un)?logged\M|(?:re)?set\s*(?=\())', 'i'))[1], '\s+', ' ', 'g')) end
$$;
comment on function shardman.storage_form(text, text) is
    'the form of ALTER TABLE about storage that a sharded table cannot have, or not in one statement with others: SET and RESET';

create or replace function shardman.refuse_storage(relation text, form text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if form ~ '^(RE)?SET ?$' then
        raise exception 'storage parameters of % cannot be changed in one statement with other things', relation
            using errcode = 'feature_not_supported', hint = 'Send them as statements of their own, in one transaction.';
    elsif form = 'REPLICA IDENTITY' then
        raise exception 'the replica identity of % follows from its keys, on each copy', relation
            using errcode = 'feature_not_supported', hint = 'Leave it: it is the primary key, else another key of columns that are not null, else whole rows.';
    elsif form ~ 'LOGGED$' then
        -- Before 18 PostgreSQL takes it for a partitioned table, and does nothing for its rows.
        raise exception 'the rows of % are logged, as moves and replicas read the log', relation using errcode = 'feature_not_supported', hint = 'Leave it out.';
    end if;
    raise exception '% cannot be sharded and have %: its rows are in data tables of several nodes', relation, form
        using errcode = 'feature_not_supported',
              hint = format('Each node may have its own: there, for each of its data tables, set shardman.ddl = ''here''; ALTER TABLE %s_0_data %s ...',
                            shardman.sql_name(relation), form);
end
$$;
comment on function shardman.refuse_storage(text, text) is 'raises what such a form of ALTER TABLE gets';

create or replace function shardman.tuning_of(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('kind', t.kind, 'col', t.col, 'name', t.name, 'value', t.value)), '[]')
      from (select x.kind, x.col, x.name, x.value from shardman.tuning x where x.rel = tuning_of.rel
            union all
            -- To set it back one must know what to: 15 has no word for that.
            select 'storage', a.attname, '', case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'x' then 'extended' else 'main' end
              from pg_attribute a join pg_type y on y.oid = a.atttypid
             where a.attrelid = tuning_of.rel and a.attnum > 0 and not a.attisdropped and a.attstorage = y.typstorage) as t
$$;
comment on function shardman.tuning_of(oid) is 'what is set of a table: rows of shardman.tuning, and the storage of all its columns';

create or replace function shardman.tuning_changes(former jsonb, now_ jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('kind', kind, 'col', col, 'name', name, 'value', n.value)), '[]')
      from jsonb_to_recordset(former) as f (kind text, col text, name text, value text)
      full join jsonb_to_recordset(now_) as n (kind text, col text, name text, value text) using (kind, col, name)
     where n.value is distinct from f.value
$$;
comment on function shardman.tuning_changes(jsonb, jsonb) is 'what differs between two of shardman.tuning_of; value: what it is now, null for what is not set any more';

create or replace function shardman.tuning_sql(change jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when c.col <> '' then format('alter column %I ', c.col) else '' end
           || case when c.kind like '%option'
                   then format(case when c.value is null then 'reset (%s)' else 'set (%s = %L)' end,
                               case when c.name like 'toast.%' then 'toast.' else '' end || quote_ident(regexp_replace(c.name, '^toast\.', '')), c.value)
                   when c.kind = 'statistics' then 'set statistics ' || coalesce(c.value::int, -1)
                   when c.kind = 'compression' then 'set compression ' || coalesce(quote_ident(c.value), 'default')
                   when c.kind = 'storage' then format('set storage %I', c.value) end
      from jsonb_to_record(change) as c (kind text, col text, name text, value text)
$$;
comment on function shardman.tuning_sql(jsonb) is 'a row of shardman.tuning_changes as a form of ALTER TABLE';

create or replace function shardman.tune(rel oid, changes jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    forms constant text := (select string_agg(shardman.tuning_sql(c), ', ') from jsonb_array_elements(changes) c);
begin
    if forms is not null then
        execute format('alter table only %s %s', rel::regclass, forms);
    end if;
end
$$;
comment on function shardman.tune(oid, jsonb) is 'sets what shardman.tuning_changes has, of one table';

create or replace function shardman.tuning_of_data(part_name text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.tuning_of(shardman.find_relation(shardman.data_table(part_name)))
$$;
comment on function shardman.tuning_of_data(text) is 'what is set of the data table of a partition on this node';

create or replace function shardman.tune_data(part_name text, wanted jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.tune(d, shardman.tuning_changes(shardman.tuning_of(d), wanted)) from shardman.find_relation(shardman.data_table(part_name)) as d
$$;
comment on function shardman.tune_data(text, jsonb) is 'sets of the data table of a partition on this node what another node has told of its own';

create or replace function shardman.make_tuning_stand_in(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    rel   constant oid := shardman.find_relation(relation);
    data  constant oid := (select d.data from shardman.data_tables_here(rel) d limit 1);
    name  constant text := shardman.sql_name(relation);
    def   constant jsonb := (select t.definition from shardman.tables t where t.relation = make_tuning_stand_in.relation);
    line  text;
begin
    perform shardman.need_owner(relation);
    if shardman.called_here(relation) <> relation then
        raise exception 'storage parameters of a table that has just got another name cannot be changed yet'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Change them before it is renamed, or in another transaction a moment later.';
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.put_aside(relation);
    execute format('create table %s (like %s including storage including compression)%s', name, rel::regclass,
                   case when data is null then shardman.storage_sql(def) end);
    if data is null then
        for line in select * from shardman.column_tuning(def, name) loop
            execute line;
        end loop;
    else
        perform shardman.tune(shardman.find_relation(relation), shardman.tuning_changes(shardman.tuning_of(shardman.find_relation(relation)), shardman.tuning_of(data)));
    end if;
    execute format('alter table %s owner to %I', name, (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = rel));
    perform set_config('shardman.ddl_tuning', shardman.tuning_of(shardman.find_relation(relation))::text, true), set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.make_tuning_stand_in(text) is
    'the end of the gate, for the owner of a sharded table: puts it aside, and in its place an empty table that is set as its data tables are';

create or replace function shardman.finish_tuning(relation text, given jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    stand   constant oid := shardman.find_relation(relation);
    rel     constant oid := shardman.table_behind(relation);
    former  constant jsonb := coalesce(nullif(current_setting('shardman.ddl_tuning', true), ''), '[]');
    changes constant jsonb := coalesce(given -> 'tuning', shardman.tuning_changes(former, shardman.tuning_of(stand)));
    -- Nothing of a partition's rows is the table's, but new data tables are made like it.
    of_all  constant jsonb := (select coalesce(jsonb_agg(c), '[]') from jsonb_array_elements(changes) c where c ->> 'kind' in ('storage', 'compression', 'statistics'));
begin
    perform shardman.need_owner(relation);
    perform set_config('shardman.ddl_busy', 'on', true), set_config('shardman.ddl_tuning', '', true);
    perform shardman.put_back(relation);
    perform shardman.tune(rel, of_all);
    perform shardman.tune(d.data, changes) from shardman.data_tables_here(rel) d;
    perform shardman.tune(c, changes) from shardman.copies_here(relation) c;
    perform set_config('shardman.ddl_busy', '', true);
    return jsonb_build_object('tuning', changes);
end
$$;
comment on function shardman.finish_tuning(text, jsonb) is
    'for the owner of a sharded table: puts it back, and gives its data tables and copies on this node what was set of its stand-in; given: what another node '
    'has returned';
