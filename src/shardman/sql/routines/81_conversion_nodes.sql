-- What a conversion makes and does on every node that gets partitions of the new table.
--
-- Each has the shadow: the parent under another name, all partitions, data tables in those that are to lie there and routes in the
-- others. Rows come from the plain table's node: those of its snapshot straight into the shadow, what was written since through the
-- staging table, shardman.rows_c<id>, which has the keys from the log and the rows that they now have.

create or replace function shardman.make_shadow_partitions(definition jsonb, shadow text, places int[], servers jsonb, first int, last int) returns void
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    me   constant int := shardman.my_id();
    part text;
begin
    for k in first .. last loop
        part := shardman.suffixed(definition ->> 'relation', '_' || k);
        perform shardman.make_partition(definition, shadow, part, (definition ->> 'partitions_count')::int, k);
        if shardman.attached_to(part) is not null then
            continue;
        elsif places[k + 1] = me then
            perform shardman.make_data_table(part, shadow, definition, false);
            perform shardman.attach_data(part);
        else
            perform shardman.drop_route(part);
            perform shardman.make_attached_route(part, coalesce(servers ->> places[k + 1]::text, shardman.node_server(places[k + 1])));
        end if;
    end loop;
end
$$;
comment on function shardman.make_shadow_partitions(jsonb, text, int[], jsonb, int, int) is
    'the partitions first to last of a shadow. places: the node of each, from partition 0; servers: by node, where routes are not to lead '
    'over the plain foreign server';

create or replace function shardman.renew_shadow_routes(definition jsonb, places int[], servers jsonb, first int, last int) returns void
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    part text;
begin
    for k in first .. last loop
        part := shardman.suffixed(definition ->> 'relation', '_' || k);
        if servers ? places[k + 1]::text then
            perform shardman.drop_route(part);
            perform shardman.make_attached_route(part, servers ->> places[k + 1]::text);
        end if;
    end loop;
end
$$;
comment on function shardman.renew_shadow_routes(jsonb, int[], jsonb, int, int) is 'lets the routes of a shadow lead over these foreign servers, by node';

create or replace function shardman.make_staging(relation text, keys jsonb, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    staging constant text := format('shardman.rows_c%s', cmd_id);
    cols    text;
begin
    -- Base types: of a row that is gone there are only nulls, which a domain may forbid.
    select string_agg(c, ', ' order by o, n) into cols from (
        select 1, n, format('s.%I::%s as shardman_key_%s', k ->> 'name', k ->> 'type', n) from jsonb_array_elements(keys) with ordinality as u (k, n)
        union all
        select 2, a.attnum, format('s.%I::%s as %I', a.attname, format_type(shardman.base_type(a.atttypid), -1), a.attname)
          from pg_attribute a
         where a.attrelid = shardman.find_relation(relation) and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') as u (o, n, c);
    execute format('create unlogged table %s as select null::int as shardman_part, null::bool as shardman_there, %s from %s as s with no data',
                   staging, cols, shardman.sql_name(relation));
    execute format('create index on %s (shardman_part)', staging);
    execute format('comment on table %s is %L', staging, format('rows that command %s brings up to date', cmd_id));
end
$$;
comment on function shardman.make_staging(text, jsonb, bigint) is
    'makes shardman.rows_c<cmd_id>, for rows of this relation. keys: as shardman.conversion_key gives them';

create or replace function shardman.staged_rows(relation text, shadow text, definition jsonb, keys jsonb, cmd_id bigint, rows bool) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    names  text;
    first  text;
    listed text;
    met    text;
begin
    select string_agg(format('%I', k ->> 'name'), ', ' order by n), min(format('%I', k ->> 'name')) filter (where n = 1),
           string_agg(format('l.%I', k ->> 'name'), ', ' order by n),
           string_agg(format('t.%I %s l.%I', k ->> 'name', k ->> 'equals', k ->> 'name'), ' and ' order by n)
      into names, first, listed, met from jsonb_array_elements(keys) with ordinality as u (k, n);
    return format('select l.shardman_part::int, %s, %s, %s from (select k.*, (%s) as shardman_part from '
                  '(select distinct %s from shardman.log_c%s where %s is not null) as k) as l left join only %s as t on %s',
                  case when rows then 't.ctid is not null' else 'false' end, listed, shardman.plain_columns(relation, 't'),
                  shardman.partition_number(shardman.find_relation(shadow), definition), names, cmd_id, first, shardman.sql_name(relation),
                  case when rows then met else 'false' end);
end
$$;
comment on function shardman.staged_rows(text, text, jsonb, jsonb, bigint, bool) is
    'the query that gives what is in the log as shardman.rows_c<cmd_id> has it, by l.shardman_part; rows: with the rows as they are now';

create or replace function shardman.local_parts(shadow text) returns table (k int, part text, data oid)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.part_number(n.name), n.name, l.leaf
      from shardman.leaves(shardman.find_relation(shadow)) l cross join lateral (select shardman.metadata_name(l.part) offset 0) as n (name)
     where l.kind = 'data'
     order by 1
$$;
comment on function shardman.local_parts(text) is 'the partitions of a table whose data tables are in them on this node';

create or replace function shardman.replay_rows(shadow text, keys jsonb, cmd_id bigint, truncated bool, hold bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $$
declare
    staging   constant text := format('shardman.rows_c%s', cmd_id);
    met       constant text := (select string_agg(format('s.%I %s l.shardman_key_%s', k ->> 'name', k ->> 'equals', n), ' and ' order by n)
                                  from jsonb_array_elements(keys) with ordinality as u (k, n));
    cols      constant text := shardman.plain_columns(shadow, null);
    cols_of_l constant text := shardman.plain_columns(shadow, 'l');
    numbers   int[];
    many      bool;
    parts     text;
    tables    text;
    touched   oid[];
    data      oid;
begin
    if truncated then
        for data in select p.data from shardman.local_parts(shadow) p loop
            execute format('truncate %s', data::regclass);
        end loop;
    end if;
    execute format('select array_agg(distinct shardman_part order by shardman_part), count(*) > 5000 from %s', staging) into numbers, many;
    if numbers is null then
        return;
    end if;
    -- All at once: what is said for each of many partitions makes a round so long that there is as much to be done after it.
    select string_agg('only ' || shardman.sql_name(p.part), ', ' order by p.k), string_agg('only ' || p.data::regclass, ', ' order by p.k),
           array_agg(p.data order by p.k), array_agg(p.k order by p.k)
      into parts, tables, touched, numbers
      from shardman.local_parts(shadow) p where p.k = any (numbers);
    if hold then
        -- Whoever comes over a route from a node that is released before this one must not find it as it was.
        execute format('lock table %s in access exclusive mode', parts);
    end if;
    -- Their owner may be at work on them.
    execute format('lock table %s in row exclusive mode', tables);
    perform shardman.need_trusted(touched || shardman.find_relation(shadow));
    for i in 1 .. array_length(touched, 1) loop
        execute format('delete from only %s as s using %s as l where l.shardman_part = %s and %s', touched[i]::regclass, staging, numbers[i], met);
    end loop;
    -- Rows find their partitions. Those that lie elsewhere are not among them, so no route is used, and the transaction can be prepared.
    execute format('insert into %s (%s) select %s from %s as l where l.shardman_there', shardman.sql_name(shadow), cols, cols_of_l, staging);
    if many then
        execute format('truncate %s', staging);
    else
        execute format('delete from %s', staging);
    end if;
end
$$;
comment on function shardman.replay_rows(text, jsonb, bigint, bool, bool) is
    'brings the rows in shardman.rows_c<cmd_id> up to date in the data tables of a shadow on this node, and empties it. truncated: the plain '
    'table was; hold: keeps the partitions that it touches locked until the transaction ends';

create or replace function shardman.shadow_contents(shadow text, keys jsonb, cmd_id bigint, parts int[]) returns table (k int, rows bigint, hash text)
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    differs text;
    p       record;
begin
    if keys is not null then
        select format('not exists (select from shardman.rows_c%s as l where %s)', cmd_id,
                      string_agg(format('t.%I %s l.shardman_key_%s', e ->> 'name', e ->> 'equals', n), ' and '))
          into differs from jsonb_array_elements(keys) with ordinality as u (e, n);
    end if;
    for p in select * from shardman.local_parts(shadow) l where l.k = any (parts) loop
        if pg_relation_size(p.data) = 0 then
            k := p.k; rows := 0; hash := '0';
            return next;
        else
            return query execute format('select %s, count(*), coalesce(sum(%s), 0)::text from only %s as t where %s', p.k,
                                        shardman.row_hash(shardman.metadata_name(p.data), 't'), p.data::regclass, coalesce(differs, 'true'));
        end if;
    end loop;
end
$$;
comment on function shardman.shadow_contents(text, jsonb, bigint, int[]) is
    'number and order-independent hash of the rows in the data tables of these partitions, but for those whose keys are in '
    'shardman.rows_c<cmd_id>; keys is null: of all';

create or replace function shardman.make_shadow_indexes(definition jsonb, parts int[], fast int) returns void
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    part text;
begin
    perform set_config('maintenance_work_mem', fast || 'kB', true) from pg_settings
      where name = 'maintenance_work_mem' and setting::bigint < fast;
    for i in 1 .. array_length(parts, 1) loop
        part := shardman.suffixed(definition ->> 'relation', '_' || parts[i]);
        perform shardman.make_data_indexes(part, definition);
        execute format('analyze %s', shardman.sql_name(shardman.data_table(part)));
    end loop;
end
$$;
comment on function shardman.make_shadow_indexes(jsonb, int[], int) is
    'keys, indexes and statistics of the data tables of these partitions; fast: kB of memory for a build';

create or replace function shardman.drop_shadow_parts(shadow text, at_most int) returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    n    int := 0;
    part oid;
begin
    for part in select i.inhrelid from pg_inherits i where i.inhparent = shardman.find_relation(shadow) order by i.inhrelid limit at_most loop
        execute format('drop table %s', part::regclass);
        n := n + 1;
    end loop;
    return n;
end
$$;
comment on function shardman.drop_shadow_parts(text, int) is
    'drops so many partitions of a shadow, and returns how many there were; thousands of them at once need more locks than a server has';
