-- Colocated tables: which partitions go together, how a table joins a group and leaves it. And foreign keys inside a group, and of a sharded
-- table to itself: what is asked for becomes an item of the definition, of which every node makes its own (56_references.sql).

create or replace function shardman.rank_of(part_name text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array_agg(q.part_name order by q.relation)
      from shardman.partitions p join shardman.tables t on t.relation = p.relation
      join shardman.tables o on o.relation = t.relation or o.colocation = t.colocation
      join shardman.partitions q on q.relation = o.relation and q.prv is null
       and q.part_name = shardman.suffixed(o.relation, '_' || shardman.part_number(p.part_name))
     where p.part_name = rank_of.part_name and p.prv is null
$$;
comment on function shardman.rank_of(text) is
    'the partitions that go together with one, itself too: those of its number of all tables that are colocated with its own';

create or replace function shardman.unique_columns(definition jsonb) returns setof text[]
language sql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    -- What a deferrable key promises does not hold at each instant, and no foreign key may rely on it.
    select (select array_agg(c order by c) from unnest(shardman.split_list(k.columns)) as c)
      from (select substring(k ->> 'sql' from '^(?:PRIMARY KEY|UNIQUE(?: NULLS NOT DISTINCT)?) \((.*?)\)(?: INCLUDE \(.*\))?$') as columns
              from jsonb_array_elements(definition -> 'keys') k
            union all
            -- Of all rows, and of columns alone.
            select substring(i ->> 'sql' from replace('^USING btree \((WORD(?:, WORD)*)\)(?: INCLUDE \(.*\))?(?: NULLS NOT DISTINCT)?$', 'WORD', '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'))
              from jsonb_array_elements(definition -> 'indexes') i where (i ->> 'unique')::bool) as k
     where k.columns is not null
$$;
comment on function shardman.unique_columns(jsonb) is 'the columns of each key of a sharded table that a foreign key may refer to, as SQL writes them, sorted';

create or replace function shardman.column_type(definition jsonb, column_name text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    -- Without its modifier: numbers and texts of other lengths are compared all the same.
    select regexp_replace(c ->> 'type', '\(.*?\)', '') from jsonb_array_elements(definition -> 'columns') c where c ->> 'name' = column_type.column_name
$$;
comment on function shardman.column_type(jsonb, text) is 'the type of a column of a definition; null when there is no such column';

create or replace function shardman.inside_problem(child jsonb, parent jsonb, columns name[], to_columns name[]) returns text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select p from (
        select 1, format('%s is not colocated with %s', child ->> 'relation', parent ->> 'relation')
         where not shardman.colocated(child ->> 'relation', parent ->> 'relation')
        union all
        select 2, 'the foreign key has no columns, or not as many as it refers to' where coalesce(cardinality(columns), 0) not in (cardinality(to_columns)) or columns = '{}'
        union all
        select 3, format('%s has no column %s', d ->> 'relation', quote_ident(c))
          from (select child, unnest(columns) union all select parent, unnest(to_columns)) as u (d, c) where shardman.column_type(d, c) is null
        union all
        select 4, format('the foreign key must have %s, by which %s is distributed, and refer to %s with it', k ->> 'sql', child ->> 'relation', p ->> 'sql')
          from jsonb_array_elements(child -> 'key') with ordinality as x (k, n) join jsonb_array_elements(parent -> 'key') with ordinality as y (p, n) using (n)
         where not exists (select from unnest(columns, to_columns) as u (c, r) where c = k ->> 'column' and r = p ->> 'column')
        union all
        select 5, format('%s (%s) has not the type of %s (%s)', quote_ident(c), shardman.column_type(child, c), quote_ident(r), shardman.column_type(parent, r))
          from unnest(columns, to_columns) as u (c, r)
         where shardman.column_type(child, c) <> shardman.column_type(parent, r)
           and not (shardman.column_type(child, c) || ' ' || shardman.column_type(parent, r)) ~ '^(smallint|integer|bigint) (smallint|integer|bigint)$'
        union all
        select 6, format('%s has no key of exactly the columns (%s) that is checked at once', parent ->> 'relation', (select string_agg(quote_ident(c), ', ') from unnest(to_columns) c))
         where not exists (select from shardman.unique_columns(parent) u where u = (select array_agg(quote_ident(c) order by quote_ident(c)) from unnest(to_columns) c))
    ) as found_ (n, p) order by n limit 1
$$;
comment on function shardman.inside_problem(jsonb, jsonb, name[], name[]) is
    'why data tables of one sharded table can have no foreign key of these columns to those of another; null when they can';

create or replace function shardman.as_here(definition jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((select definition || jsonb_build_object('columns', shardman.describe_columns(r.oid), 'keys', (definition -> 'keys') || shardman.plain_keys(r.oid))
                       from (select shardman.find_relation(definition ->> 'relation') as oid) r where r.oid is not null), definition)
$$;
comment on function shardman.as_here(jsonb) is 'the definition of a sharded table with the columns, and also the keys, that it has on this node: the metadata hear of new ones later';

create or replace function shardman.inside_reference(
    relation text, columns name[], referred text, to_columns name[], name name default null,
    on_delete text default 'no action', on_update text default 'no action', match_full bool default false) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
    child   constant jsonb := (select shardman.as_here(t.definition) from shardman.tables t where t.relation = shardman.normal_name(inside_reference.relation));
    parent  constant jsonb := (select shardman.as_here(t.definition) from shardman.tables t where t.relation = shardman.normal_name(referred));
    -- SET NULL (a, b): only these columns.
    action  constant text[] := regexp_match(btrim(on_delete), '^(no action|restrict|cascade|set null|set default)\s*(?:\((.+)\))?$', 'i');
    written text[];
    problem text;
    called  text := inside_reference.name;
    actions text;
begin
    if child is null or parent is null then
        raise exception '% is not a sharded table', case when child is null then relation else referred end
            using errcode = 'undefined_table', hint = 'Shard it first, colocated with the other.';
    elsif action is null or (action[2] is not null and action[1] !~* '^set') then
        raise exception '"%" is no action of a foreign key', on_delete
            using errcode = 'invalid_parameter_value', hint = 'no action, restrict, cascade, set null or set default; behind set the columns in parentheses.';
    elsif on_update !~* '^\s*(no action|restrict|cascade)\s*$' then
        raise exception 'ON UPDATE % would change columns by which rows are distributed', on_update
            using errcode = 'invalid_parameter_value', hint = 'Use no action, restrict or cascade.';
    end if;
    problem := shardman.inside_problem(child, parent, columns, to_columns);
    if problem is not null then
        raise exception '%', problem using errcode = 'SHM11',
            hint = 'Data table k of the one refers to data table k of the other: the tables are colocated, the key is part of the foreign key, at its own place.';
    end if;
    written := case when action[1] ~* '^set' then coalesce(shardman.split_list(action[2]), (select array_agg(quote_ident(c)) from unnest(columns) c)) end;
    if exists (select from jsonb_array_elements(child -> 'key') k where k ->> 'sql' = any (written)) then
        raise exception 'ON DELETE % would change %, by which rows are distributed', on_delete,
            (select string_agg(k ->> 'sql', ', ') from jsonb_array_elements(child -> 'key') k where k ->> 'sql' = any (written))
            using errcode = 'SHM11', hint = 'Name the other columns behind it: set null (order_id).';
    elsif exists (select from unnest(written) w where w <> all (select quote_ident(c) from unnest(columns) c)) then
        raise exception 'ON DELETE % names a column that the foreign key has not', on_delete using errcode = 'invalid_parameter_value';
    end if;
    actions := case when match_full then ' MATCH FULL' else '' end
               || case when on_update ~* 'no action' then '' else ' ON UPDATE ' || upper(btrim(on_update)) end
               || case when action[1] ~* 'no action' then '' else ' ON DELETE ' || upper(action[1]) end
               || coalesce(case when action[2] is not null then ' (' || array_to_string(written, ', ') || ')' end, '');
    if called is null then
        called := shardman.cut_bytes((shardman.relation_parts(relation))[2] || '_' || array_to_string(columns, '_'), 58) || '_fkey';
    end if;
    return jsonb_build_object('name', called, 'columns', to_jsonb(columns), 'comment', null)
           || shardman.inside_item(parent ->> 'relation', to_jsonb(columns), to_jsonb(to_columns), actions);
end
$$;
comment on function shardman.inside_reference(text, name[], text, name[], name, text, text, bool) is
    'a foreign key from a sharded table to one that is colocated with it, or to itself, as an item for foreign_keys of the referring table''s definition '
    'in shardman.tables; raises where it cannot be. Once the item is written there, by a command on the lord, shardman.reconcile makes it on the data tables '
    'of every node (shardman.reference_sql), not validated, and visits validate it. The caller sees to names that are taken and to rights '
    '(REFERENCES on the referred table): what makes it is the cluster''s role';

create or replace function shardman.refers_inside(part_name text, others text[]) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_constraint o
                    where o.contype = 'f' and o.conrelid = shardman.find_relation(shardman.data_table(part_name))
                      and shardman.part_relation(shardman.metadata_name(o.confrelid)) = any (others))
$$;
comment on function shardman.refers_inside(text, text[]) is 'whether the data table of a partition has foreign keys to those of these sharded tables';

create or replace function shardman.drop_inside_references(part_name text, others text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data constant oid := shardman.find_relation(shardman.data_table(part_name));
    o    record;
begin
    for o in
        select c.conname from pg_constraint c
         where c.contype = 'f' and c.conrelid = data and shardman.part_relation(shardman.metadata_name(c.confrelid)) = any (others)
    loop
        execute format('alter table %s drop constraint %I', data::regclass, o.conname);
    end loop;
end
$$;
comment on function shardman.drop_inside_references(text, text[]) is 'drops the foreign keys of the data table of a partition to those of these sharded tables';

create or replace function shardman.forget_references(relation text, others text[]) returns void
language sql set search_path = pg_catalog, pg_temp as $$
    update shardman.tables t
       set definition = t.definition || jsonb_build_object('foreign_keys', (
               select coalesce(jsonb_agg(f order by n), '[]') from jsonb_array_elements(t.definition -> 'foreign_keys') with ordinality as u (f, n)
                where not (f ? 'to_columns' and f ->> 'to' = any (others))))
     where t.relation = forget_references.relation
       and exists (select from jsonb_array_elements(t.definition -> 'foreign_keys') f where f ? 'to_columns' and f ->> 'to' = any (others))
$$;
comment on function shardman.forget_references(text, text[]) is
    'lord only: takes a table''s foreign keys to these tables, which are colocated with it, out of its definition';

create or replace function shardman.join_group(relation text, other text, cmd_id bigint) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Full joins: what one has and the other has not is as good as elsewhere.
    if exists (
        select from (select shardman.part_number(p.part_name) as k, p.owner, p.prv is null as is_primary, p.stale_since is null as follows
                       from shardman.partitions p where p.relation = join_group.relation) as mine
          full join (select shardman.part_number(p.part_name) as k, p.owner, p.prv is null as is_primary, p.stale_since is null as follows
                       from shardman.partitions p where p.relation = other) as theirs using (k, owner)
         where (mine.is_primary, mine.follows) is distinct from (theirs.is_primary, theirs.follows)) then
        return false;
    end if;
    -- The same order of succession.
    update shardman.partitions p set prv = q.prv, nxt = q.nxt
      from shardman.partitions q
     where p.relation = join_group.relation and q.relation = other and q.owner = p.owner
       and shardman.part_number(q.part_name) = shardman.part_number(p.part_name) and (p.prv, p.nxt) is distinct from (q.prv, q.nxt);
    update shardman.tables t set colocation = coalesce(t.colocation, cmd_id) where t.relation = other;
    update shardman.tables t set colocation = o.colocation, replevel = o.replevel
      from shardman.tables o where t.relation = join_group.relation and o.relation = other;
    return true;
end
$$;
comment on function shardman.join_group(text, text, bigint) is
    'lord only, with shardman.partitions locked: records that a table is colocated with another one, if all its copies lie with that one''s '
    'and follow where those do; whether it did';

create or replace function shardman.leave_group(relation text) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    group_left constant bigint := (select t.colocation from shardman.tables t where t.relation = leave_group.relation);
begin
    if exists (
        select from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') as f
         where t.colocation = group_left and f ? 'to_columns' and f ->> 'to' <> t.relation
           and leave_group.relation in (t.relation, f ->> 'to')) then
        return false;
    end if;
    -- Who is left with nobody is alone, too.
    update shardman.tables t set colocation = null
     where t.colocation = group_left
       and (t.relation = leave_group.relation
            or 2 = (select count(*) from shardman.tables o where o.colocation = group_left));
    return true;
end
$$;
comment on function shardman.leave_group(text) is
    'lord only: records that a table is colocated with none, if no foreign key leads from it to others of its group or back; whether it did';
