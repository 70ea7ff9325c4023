-- The partitioned parent of a table on a node, its sequences, comments and privileges.

create or replace function shardman.column_sql(col jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select concat_ws(' ', quote_ident(col ->> 'name'), col ->> 'type', 'collate ' || (col ->> 'collation'),
               case when col ->> 'generated' = 's' then format('generated always as (%s) stored', col ->> 'default')
                    when col ->> 'generated' = 'v' then format('generated always as (%s) virtual', col ->> 'default')
                    else 'default ' || (col ->> 'default') end,
               case when (col ->> 'not_null')::bool
                    then case when current_setting('server_version_num')::int >= 180000
                              then 'constraint ' || quote_ident(col ->> 'not_null_name') || ' ' else '' end || 'not null' end)
$$;
comment on function shardman.column_sql(jsonb) is 'a column of a definition as CREATE TABLE wants it';

create or replace function shardman.sequence_name(definition jsonb, relation text, i int) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when shardman.normal_name(relation) = definition ->> 'relation' then definition -> 'sequences' -> i ->> 'name'
                else shardman.relation_text(p[1], shardman.cut_bytes(p[2], 55) || '_seq' || i) end
      from (select shardman.relation_parts(relation) as p) as r
$$;
comment on function shardman.sequence_name(jsonb, text, int) is
    'the name of sequence i of a definition; a parent under a temporary name has sequences under temporary names';

create or replace function shardman.parent_sql(definition jsonb, relation text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    items text[];
    body  text;
begin
    select array_agg(shardman.column_sql(c) order by n) into items
      from jsonb_array_elements(definition -> 'columns') with ordinality as u (c, n);
    select items || coalesce(array_agg(format('constraint %I %s', c ->> 'name', c ->> 'sql') order by n), '{}') into items
      from jsonb_array_elements(definition -> 'checks') with ordinality as u (c, n) where not (c ->> 'no_inherit')::bool and not shardman.is_late(c);
    body := array_to_string(items, E',\n    ');
    for i in 0 .. jsonb_array_length(definition -> 'sequences') - 1 loop
        body := replace(body, shardman.next_value(definition -> 'sequences' -> i ->> 'name'),
                              shardman.next_value(shardman.sequence_name(definition, relation, i)));
    end loop;
    return format(E'create table %s (\n    %s\n) partition by hash (%s)', shardman.sql_name(relation), body,
                  (select string_agg(k ->> 'part_sql', ', ' order by n)
                     from jsonb_array_elements(definition -> 'key') with ordinality as u (k, n)));
end
$$;
comment on function shardman.parent_sql(jsonb, text) is 'the statement that makes the parent under the name relation';

create or replace function shardman.grantee(acl jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(quote_ident(acl ->> 'grantee'), 'public')
$$;

create or replace function shardman.privilege_sql(definition jsonb, relation text, kind text) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('alter %s %s owner to %I', kind, shardman.sql_name(relation), definition ->> 'owner')
     where definition ->> 'owner' is distinct from current_user
    union all
    select format('grant %s on %s to %s%s',
                  string_agg(lower(a ->> 'privilege') || coalesce(' (' || quote_ident(a ->> 'column') || ')', ''), ', '
                             order by a ->> 'column' nulls first, a ->> 'privilege'),
                  shardman.sql_name(relation), shardman.grantee(a),
                  case when (a ->> 'grantable')::bool then ' with grant option' else '' end)
      from jsonb_array_elements(definition -> 'acl') a
     -- A privilege that this server's version does not have yet.
     where a ->> 'privilege' <> 'MAINTAIN' or current_setting('server_version_num')::int >= 170000
     group by shardman.grantee(a), (a ->> 'grantable')::bool
$$;
comment on function shardman.privilege_sql(jsonb, text, text) is
    'gives a relation its owner and privileges; kind: table or foreign table';

create or replace function shardman.policy_sql(definition jsonb, relation text) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (
        select shardman.sql_name(relation) as name, (shardman.relation_parts(relation))[2] as called,
               (shardman.relation_parts(definition ->> 'relation'))[2] as plain, definition -> 'row_security' as found_
    )
    select format('alter table %s enable row level security', me.name) from me where (found_ ->> 'enabled')::bool
    union all
    select format('alter table %s force row level security', me.name) from me where (found_ ->> 'forced')::bool
    union all
    select format('drop policy if exists %I on %s', p ->> 'name', me.name) from me, jsonb_array_elements(found_ -> 'policies') p
    union all
    select format('create policy %I on %s %s to %s%s%s', p ->> 'name', me.name, p ->> 'head',
                  (select string_agg(coalesce(quote_ident(r #>> '{}'), 'public'), ', ') from jsonb_array_elements(p -> 'roles') r),
                  ' using (' || shardman.policy_expression(p ->> 'using', me.plain, me.called) || ')',
                  ' with check (' || shardman.policy_expression(p ->> 'check', me.plain, me.called) || ')')
      from me, jsonb_array_elements(found_ -> 'policies') p
    union all
    select format('comment on policy %I on %s is %L', p ->> 'name', me.name, p ->> 'comment')
      from me, jsonb_array_elements(found_ -> 'policies') p where p ->> 'comment' is not null
$$;
comment on function shardman.policy_sql(jsonb, text) is
    'gives the parent its policies. A role that this node lacks keeps its policy from being there: then nobody it is for sees rows';

create or replace function shardman.sequence_extras(definition jsonb, relation text, i int) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('grant %s on sequence %s to %s%s', a ->> 'privilege',
                  shardman.sql_name(shardman.sequence_name(definition, relation, i)), shardman.grantee(a),
                  case when (a ->> 'grantable')::bool then ' with grant option' else '' end)
      from jsonb_array_elements(definition -> 'sequences' -> i -> 'acl') a
    union all
    select format('comment on sequence %s is %L', shardman.sql_name(shardman.sequence_name(definition, relation, i)),
                  definition -> 'sequences' -> i ->> 'comment')
     where definition -> 'sequences' -> i ->> 'comment' is not null
$$;

create or replace function shardman.parent_extras(definition jsonb, relation text) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (select shardman.sql_name(relation) as name)
    select format('alter table %s alter column %I set storage %s', me.name, c ->> 'name',
                  case c ->> 'storage' when 'p' then 'plain' when 'e' then 'external' when 'x' then 'extended' when 'm' then 'main' end)
      from me, jsonb_array_elements(definition -> 'columns') c where c ->> 'storage' is not null
    union all
    select format('alter table %s alter column %I set compression %s', me.name, c ->> 'name',
                  case c ->> 'compression' when 'l' then 'lz4' else 'pglz' end)
      from me, jsonb_array_elements(definition -> 'columns') c where c ->> 'compression' is not null
    union all
    select format('comment on table %s is %L', me.name, definition ->> 'comment') from me where definition ->> 'comment' is not null
    union all
    select format('comment on column %s.%I is %L', me.name, c ->> 'name', c ->> 'comment')
      from me, jsonb_array_elements(definition -> 'columns') c where c ->> 'comment' is not null
    union all
    select format('comment on constraint %I on %s is %L', c ->> 'name', me.name, c ->> 'comment')
      from me, jsonb_array_elements(definition -> 'checks') c where c ->> 'comment' is not null and not (c ->> 'no_inherit')::bool and not shardman.is_late(c)
    union all
    select format('create index %I on %s %s', x ->> 'name', me.name, x ->> 'sql')
      from me, jsonb_array_elements(definition -> 'shared_indexes') x
     where shardman.normal_name(relation) = definition ->> 'relation'
    union all
    select format('comment on index %I.%I is %L', (shardman.relation_parts(relation))[1], x ->> 'name', x ->> 'comment')
      from jsonb_array_elements(definition -> 'shared_indexes') x
     where x ->> 'comment' is not null and shardman.normal_name(relation) = definition ->> 'relation'
    union all
    select shardman.privilege_sql(definition, relation, 'table')
    union all
    select shardman.policy_sql(definition, relation)
    union all
    select shardman.sequence_extras(definition, relation, n::int - 1)
      from jsonb_array_elements(definition -> 'sequences') with ordinality as u (s, n)
$$;
comment on function shardman.parent_extras(jsonb, text) is
    'statements without which the parent works all the same: one that fails on a node is a problem there, no error';

create or replace function shardman.parent_script(definition jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.parent_sql(definition, definition ->> 'relation') || E';\n'
           || coalesce((select string_agg(x || E';\n', '') from shardman.parent_extras(definition, definition ->> 'relation') as x), '')
           || coalesce((select string_agg(x || E';\n', '') from shardman.late_script(definition, shardman.sql_name(definition ->> 'relation')) as x), '')
     where definition is not null
$$;
comment on function shardman.parent_script(jsonb) is 'all that makes the parent, to be read; its sequences each node makes for itself';

create or replace function shardman.try_sql(statement text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute statement;
    return null;
exception when others then
    return format('%s (%s)', sqlerrm, statement);
end
$$;
comment on function shardman.try_sql(text) is 'runs one statement; what went wrong, or null';

create or replace function shardman.note_problem(subject_ text, message_ text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    insert into shardman.problems as p (subject, message) values (subject_, message_)
        on conflict (subject) do update set message = excluded.message where p.message <> excluded.message;
    if found then
        perform pg_notify('shardman_problem', '');
    end if;
end
$$;
comment on function shardman.note_problem(text, text) is
    'writes down what this node could not do; whoever listens to shardman_problem hears of it when it is new';

create or replace function shardman.make_schema(definition jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    here    constant jsonb := definition -> 'schema';
    failure text;
begin
    if to_regnamespace(quote_ident(here ->> 'name')) is not null then
        -- It is the user's own, but for the right without which nobody gets to the table.
        perform shardman.try_sql(format('grant usage on schema %I to %s', here ->> 'name', shardman.grantee(a)))
           from jsonb_array_elements(here -> 'acl') a
          where a ->> 'privilege' = 'USAGE' and (a ->> 'grantee' is null or exists (select from pg_roles where rolname = a ->> 'grantee'));
        return;
    end if;
    execute format('create schema %I', here ->> 'name');
    select string_agg(f, '; ') into failure from (
        select shardman.try_sql(format('alter schema %I owner to %I', here ->> 'name', here ->> 'owner'))
         where here ->> 'owner' <> current_user
        union all
        select shardman.try_sql(format('grant %s on schema %I to %s%s', a ->> 'privilege', here ->> 'name', shardman.grantee(a),
                                       case when (a ->> 'grantable')::bool then ' with grant option' else '' end))
          from jsonb_array_elements(here -> 'acl') a
        union all
        select shardman.try_sql(format('comment on schema %I is %L', here ->> 'name', here ->> 'comment'))
         where here ->> 'comment' is not null) as t (f);
    if failure is not null then
        perform shardman.note_problem('schema ' || (here ->> 'name'), failure);
    end if;
end
$$;
comment on function shardman.make_schema(jsonb) is 'the schema of a table, where this node lacks it, and who may use it';

create or replace function shardman.sequence_range(spec jsonb, out low bigint, out high bigint)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    base  constant numeric := (spec ->> 'base')::numeric;
    width constant numeric := (spec ->> 'width')::numeric;
    id    constant int := shardman.my_id();
    top   constant numeric := shardman.type_max((spec ->> 'type')::regtype);
begin
    if id is null then
        raise exception 'this database is in no cluster: it has no range of numbers';
    elsif base + id * width + 1 > top or width < 1 then
        raise exception 'sequence % has no numbers left for node %: type % ends at %', spec ->> 'name', id, spec ->> 'type', top
            using errcode = 'sequence_generator_limit_exceeded', hint = 'Widen the type of its column to bigint before the table is sharded.';
    end if;
    low := base + id * width + 1;
    high := least(base + (id + 1) * width, top);
end
$$;
comment on function shardman.sequence_range(jsonb) is 'the numbers that a sequence gives on this node; those of different nodes never overlap';

create or replace function shardman.make_sequence(spec jsonb, name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    seq   constant oid := shardman.find_relation(name);
    range record;
    at    bigint;
begin
    select * into range from shardman.sequence_range(spec);
    if seq is null then
        execute format('create sequence %s as %s increment %s minvalue %s maxvalue %s start %s cache %s no cycle',
                       shardman.sql_name(name), spec ->> 'type', spec ->> 'increment', range.low, range.high, range.low, spec ->> 'cache');
    elsif not exists (select from pg_class where oid = seq and relkind = 'S') then
        raise exception '% is no sequence on this node', name using errcode = 'wrong_object_type', hint = 'Rename it.';
    elsif not exists (select from pg_sequence where seqrelid = seq and seqmin = range.low and seqmax = range.high) then
        execute format('select last_value from %s', seq::regclass) into at;
        execute format('alter sequence %s as %s increment %s minvalue %s maxvalue %s start %s cache %s no cycle %s',
                       seq::regclass, spec ->> 'type', spec ->> 'increment', range.low, range.high, range.low, spec ->> 'cache',
                       case when at between range.low and range.high then '' else 'restart' end);
    end if;
end
$$;
comment on function shardman.make_sequence(jsonb, text) is 'a sequence with this node''s range of numbers';

create or replace function shardman.is_parent_of(definition jsonb, rel oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_class c join pg_partitioned_table p on p.partrelid = c.oid
                    where c.oid = rel and c.relkind = 'p' and not c.relispartition and p.partstrat = 'h'
                      and p.partnatts = jsonb_array_length(definition -> 'key'))
$$;

create or replace function shardman.make_parent(definition jsonb, relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel  oid := shardman.find_relation(relation);
begin
    if shardman.is_parent_of(definition, rel) then
        return;
    elsif rel is not null then
        raise exception 'there is another relation with the name % on this node', relation
            using errcode = 'duplicate_table', hint = 'Rename it or drop it; the sharded table appears by itself then.';
    end if;
    perform shardman.need_trusted_types(definition);
    -- A role that is not there is found below.
    perform shardman.need_role(r.oid) from pg_roles r where r.rolname = definition ->> 'owner';
    perform shardman.make_schema(definition);
    for i in 0 .. jsonb_array_length(definition -> 'sequences') - 1 loop
        perform shardman.require_free_sequence(shardman.sequence_name(definition, relation, i));
        perform shardman.make_sequence(definition -> 'sequences' -> i, shardman.sequence_name(definition, relation, i));
    end loop;
    execute shardman.parent_sql(definition, relation);
    for i in 0 .. jsonb_array_length(definition -> 'sequences') - 1 loop
        execute format('alter sequence %s owned by %s.%I', shardman.sql_name(shardman.sequence_name(definition, relation, i)),
                       shardman.sql_name(relation), definition -> 'sequences' -> i ->> 'column');
        perform shardman.leave_to_owner(shardman.find_relation(shardman.sequence_name(definition, relation, i)));
    end loop;
    -- Who may what is in the definition; what the default privileges of this node have added is not.
    perform shardman.leave_to_owner(shardman.find_relation(relation));
    perform shardman.apply_extras(definition, relation);
end
$$;
comment on function shardman.make_parent(jsonb, text) is
    'makes the partitioned parent of a definition under the name relation, with all that belongs to it; does nothing where it exists';

create or replace function shardman.require_free_sequence(name text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from pg_depend where classid = 'pg_class'::regclass and objid = shardman.find_relation(name)
                  and refclassid = 'pg_class'::regclass and deptype in ('a', 'i')) then
        raise exception 'the sequence % exists on this node and belongs to another table', name
            using errcode = 'duplicate_table', hint = 'Rename it: ALTER SEQUENCE ... RENAME TO ...';
    end if;
end
$$;

create or replace function shardman.apply_extras(definition jsonb, relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    failures text;
begin
    perform shardman.need_trusted_types(definition);
    select string_agg(f, '; ') into failures
      from (select shardman.try_sql(x) from shardman.parent_extras(definition, relation) as x
             -- There where all of this is done once more, as a role is there that was missing.
             where not exists (select from pg_index i join pg_class c on c.oid = i.indexrelid
                                where i.indrelid = shardman.find_relation(relation) and starts_with(x, format('create index %I on ', c.relname)))) as t (f);
    if failures is null then
        delete from shardman.problems where subject = 'privileges of ' || (definition ->> 'relation');
    else
        perform shardman.note_problem('privileges of ' || (definition ->> 'relation'), failures);
    end if;
end
$$;
comment on function shardman.apply_extras(jsonb, text) is
    'owner, privileges, comments and the like; what fails (a role that this node lacks) is written down as a problem';

create or replace function shardman.name_sequences(definition jsonb, parent text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    old   oid;
    made  text;
    final text;
begin
    for i in 0 .. jsonb_array_length(definition -> 'sequences') - 1 loop
        made := shardman.sequence_name(definition, parent, i);
        final := definition -> 'sequences' -> i ->> 'name';
        old := shardman.find_relation(final);
        if made = final or shardman.find_relation(made) is null then
            continue;
        end if;
        if old is not null then
            execute format('alter sequence %s rename to %I', old::regclass,
                           shardman.cut_bytes((shardman.relation_parts(made))[2], 58) || '_old');
        end if;
        execute format('alter sequence %s rename to %I', shardman.sql_name(made), (shardman.relation_parts(final))[2]);
    end loop;
end
$$;
comment on function shardman.name_sequences(jsonb, text) is
    'inside a conversion''s cutover, before the parent takes its name: sequences that the parent got under temporary names take '
    'theirs; those of the plain table, which they push aside, go with it';
