-- A sharded or shared table as an ordinary one of a plain server, for shardman dump.

create or replace function shardman.plain_table(definition jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    with me as (select shardman.sql_name(definition ->> 'relation') as name)
    select string_agg(line || E';\n', '' order by n, line) from (
        select 1 as n, format('create schema if not exists %I', definition -> 'schema' ->> 'name') as line
         where definition -> 'schema' ->> 'name' <> 'public'
        union all
        select 2, format('create sequence %s as %s increment %s cache %s', shardman.sql_name(s ->> 'name'), s ->> 'type',
                         s ->> 'increment', s ->> 'cache')
          from jsonb_array_elements(definition -> 'sequences') as s
        union all
        select 3, format(E'create table %s (\n    %s\n)', me.name, array_to_string(
                   array(select shardman.column_sql(c) from jsonb_array_elements(definition -> 'columns') with ordinality as u (c, i) order by i)
                   || array(select format('constraint %I %s%s', c ->> 'name', c ->> 'sql', case when (c ->> 'no_inherit')::bool then ' no inherit' end)
                              from jsonb_array_elements(definition -> 'checks') with ordinality as u (c, i) where not shardman.is_late(c) order by i), E',\n    '))
          from me
        union all
        select 4, format('alter sequence %s owned by %s.%I', shardman.sql_name(s ->> 'name'), me.name, s ->> 'column')
          from me, jsonb_array_elements(definition -> 'sequences') as s
    ) as lines (n, line)
$$;
comment on function shardman.plain_table(jsonb) is 'the statements that make a table like the sharded one on a plain server, without keys and indexes';

create or replace function shardman.plain_indexes(definition jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    with me as (select shardman.sql_name(definition ->> 'relation') as name, definition -> 'schema' ->> 'name' as schema)
    select coalesce(string_agg(line || E';\n', '' order by n, i), '') from (
        select 1, i, format('alter table %s add constraint %I %s', me.name, k ->> 'name', k ->> 'sql')
          from me, jsonb_array_elements(definition -> 'keys') with ordinality as u (k, i)
        union all
        select 2, i, format('create %sindex %I on %s %s', case when (x ->> 'unique')::bool then 'unique ' end, x ->> 'name', me.name, x ->> 'sql')
          from me, jsonb_array_elements((definition -> 'indexes') || coalesce(definition -> 'shared_indexes', '[]')) with ordinality as u (x, i)
        union all
        select 3, 1, shardman.statistics_script(definition, me.name) from me
        union all
        select 3, 2, shardman.late_script(definition, me.name) from me
        union all
        select 4, i, format('comment on table %s is %L', me.name, definition ->> 'comment') from me, (values (1)) as v (i)
         where definition ->> 'comment' is not null
        union all
        select 5, i, format('comment on column %s.%I is %L', me.name, c ->> 'name', c ->> 'comment')
          from me, jsonb_array_elements(definition -> 'columns') with ordinality as u (c, i) where c ->> 'comment' is not null
        union all
        select 6, i, format('select pg_catalog.setval(%L, (select max(%I) from %s))', shardman.sql_name(s ->> 'name'), s ->> 'column', me.name)
          from me, jsonb_array_elements(definition -> 'sequences') with ordinality as u (s, i)
        union all
        select 7, i, format('alter table %s add constraint %I %s', me.name, f ->> 'name', f ->> 'sql')
          from me, jsonb_array_elements(definition -> 'foreign_keys') with ordinality as u (f, i) where not f ? 'to_columns'
        union all
        select 8, i, format('comment on constraint %I on %s is %L', f ->> 'name', me.name, f ->> 'comment')
          from me, jsonb_array_elements(definition -> 'foreign_keys') with ordinality as u (f, i)
         where f ->> 'comment' is not null and not f ? 'to_columns'
    ) as lines (n, i, line)
$$;
comment on function shardman.plain_indexes(jsonb) is
    'what follows shardman.plain_table once the rows are there: keys, indexes, foreign keys to shared tables, and where sequences stand';

create or replace function shardman.plain_shared(definition jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    with me as (select shardman.sql_name(definition ->> 'relation') as name), sequences as (
        select s, shardman.sql_name(s ->> 'name') as name, i ->> 'kind' as identity
          from jsonb_array_elements(definition -> 'sequences') s left join jsonb_array_elements(definition -> 'identities') i on i ->> 'column' = s ->> 'column'
    )
    select string_agg(line || E';\n', '' order by n, line) from (
        select 1 as n, format('create schema if not exists %I', definition -> 'schema' ->> 'name') as line
         where definition -> 'schema' ->> 'name' <> 'public'
        union all
        select 2, format('create sequence %s as %s increment %s cache %s', q.name, s ->> 'type', s ->> 'increment', s ->> 'cache')
          from sequences q where q.identity is null
        union all
        select 3, format(E'create table %s (\n    %s\n)%s', me.name, shardman.shared_columns(definition), shardman.storage_sql(definition)) from me
        union all
        select 4, format('alter table %s add constraint %I %s%s', me.name, c ->> 'name', c ->> 'sql', case when (c ->> 'no_inherit')::bool then ' no inherit' end)
          from me, jsonb_array_elements(definition -> 'checks') c where not shardman.is_late(c)
        union all
        select 5, format('alter sequence %s owned by %s.%I', q.name, me.name, s ->> 'column') from me, sequences q where q.identity is null
        union all
        select 6, format('alter table %s alter column %I add generated %s as identity (sequence name %s increment %s cache %s)', me.name, s ->> 'column',
                         q.identity, q.name, s ->> 'increment', s ->> 'cache')
          from me, sequences q where q.identity is not null
    ) as lines (n, line)
$$;
comment on function shardman.plain_shared(jsonb) is 'the statements that make a table like the shared one on a plain server, without keys and indexes';

create or replace function shardman.plain_references(definition jsonb) returns table (target text, line text)
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select f ->> 'to', lines.line
      from jsonb_array_elements(definition -> 'foreign_keys') with ordinality as u (f, i)
     cross join shardman.sql_name(definition ->> 'relation') as me (name)
     cross join lateral (
         values (1, format('alter table %s add constraint %I %s', me.name, f ->> 'name', f ->> 'sql')),
                (2, case when f ->> 'comment' is not null then format('comment on constraint %I on %s is %L', f ->> 'name', me.name, f ->> 'comment') end)
     ) as lines (n, line)
     where lines.line is not null order by i, n
$$;
comment on function shardman.plain_references(jsonb) is 'what follows the keys of all shared tables: the foreign keys of one, and to which table each is';

create or replace function shardman.plain_triggers(definition jsonb) returns setof text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select line
      from jsonb_array_elements(definition -> 'triggers') with ordinality as u (t, i)
     cross join lateral (
         values (1, t ->> 'sql'),
                (2, case when t ->> 'enabled' = 'D' then format('alter table %s disable trigger %I', shardman.sql_name(definition ->> 'relation'), t ->> 'name') end),
                (3, case when t ->> 'comment' is not null
                         then format('comment on trigger %I on %s is %L', t ->> 'name', shardman.sql_name(definition ->> 'relation'), t ->> 'comment') end)
     ) as lines (n, line)
     where line is not null order by i, n
$$;
comment on function shardman.plain_triggers(jsonb) is 'what follows the rows of all tables: the application''s triggers of a shared one';

create or replace function shardman.plain_inside(definition jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select coalesce(string_agg(format(E'alter table %s add constraint %I %s;\n', shardman.sql_name(definition ->> 'relation'), f ->> 'name', f ->> 'sql'), ''
                               order by i), '')
      from jsonb_array_elements(definition -> 'foreign_keys') with ordinality as u (f, i) where f ? 'to_columns'
$$;
comment on function shardman.plain_inside(jsonb) is 'what follows shardman.plain_indexes of all tables: foreign keys to tables that are colocated';

create or replace function shardman.plain_rights(definition jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select format(E'alter table %s owner to %I;\n', shardman.sql_name(definition ->> 'relation'), definition ->> 'owner')
           || coalesce((select string_agg(x || E';\n', '') from shardman.privilege_sql(definition, definition ->> 'relation', 'table') as x
                         where x like 'grant %'), '')
$$;
comment on function shardman.plain_rights(jsonb) is 'owner and privileges of a table; where its roles are';
