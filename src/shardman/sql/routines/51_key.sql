-- The key: what a user gave as expr, read by PostgreSQL itself.

create or replace function shardman.bottom_type(type oid) returns oid
language plpgsql stable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    t pg_type;
begin
    loop
        select * into t from pg_type where oid = type;
        if t.typtype = 'd' then
            type := t.typbasetype;
        elsif t.typcategory = 'A' and t.typelem <> 0 then
            type := t.typelem;
        else
            return type;
        end if;
    end loop;
end
$$;
comment on function shardman.bottom_type(oid) is 'what is left of a type without domains and arrays';

create or replace function shardman.hashes_alike(type oid) returns bool
language sql stable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select shardman.bottom_type(type) = any (array[
        'int2', 'int4', 'int8', 'oid', 'numeric', 'float4', 'float8', 'bool', 'text', 'varchar', 'bpchar', 'name',
        '"char"', 'bytea', 'uuid', 'date', 'time', 'timetz', 'timestamp', 'timestamptz', 'interval', 'inet', 'cidr',
        'macaddr', 'macaddr8', 'jsonb']::regtype[]::oid[])
$$;
comment on function shardman.hashes_alike(oid) is
    'whether a value of this type has the same hash on every server of the same encoding. An enum''s hash is that of '
    'its oid, which each server has of its own; of types that are not built in nobody knows';

create or replace function shardman.equal_is_same(type oid) returns bool
language sql stable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select shardman.bottom_type(type) = any (array[
        'int2', 'int4', 'int8', 'oid', 'bool', 'text', 'varchar', 'name', '"char"', 'bytea', 'uuid', 'date', 'time',
        'timestamp', 'timestamptz', 'macaddr', 'macaddr8']::regtype[]::oid[])
$$;
comment on function shardman.equal_is_same(oid) is
    'whether equal values of this type cannot be told apart, so that every function gives the same for them; '
    'not so for numeric (1.0 and 1.00), float (0 and -0), interval and the like';

create or replace function shardman.raised_by(context text) returns name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select e.evtname
      from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid join pg_namespace n on n.oid = p.pronamespace
     where n.nspname <> 'shardman'
       and (strpos(context, format('function %I.%I() line', n.nspname, p.proname)) > 0 or strpos(context, format('function %I() line', p.proname)) > 0)
     order by 1 limit 1
$$;
comment on function shardman.raised_by(text) is 'the event trigger of the user''s in whose function an error arose; context: of the error';

-- What comes back:
--   {"problem": …, "hint": …}, or
--   {"key": [{"sql": value, "column": name or null, "part_sql": as in PARTITION BY, "type": …, "collatable": bool,
--             "uses": names of the columns in it}, …],
--    "partition_key": …}
create or replace function shardman.read_key(relation oid, expr text) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    items   text[];
    message text;
    state   text;
    context text;
    answer  jsonb;
begin
    begin
        items := shardman.split_list(expr);
        if items = '{""}' then
            return jsonb_build_object('problem', 'the key is empty', 'hint', 'Name the column to shard by');
        elsif '' = any (items) then
            raise exception 'there is nothing between two commas, or before or after one' using errcode = 'data_exception';
        end if;
        perform set_config('client_min_messages', 'error', true);
        -- The user's functions are looked for where the user's names are.
        perform set_config('search_path', 'public', true);
        execute format('create temp table shardman_probe (like %s including generated)', relation::regclass);
        execute format('create temp table shardman_probe_key (like %s including generated) partition by hash (%s)',
                       relation::regclass, expr);
        perform set_config('search_path', 'pg_catalog, pg_temp', true);
        answer := shardman.probed_key('pg_temp.shardman_probe_key'::regclass);
        -- Takes both tables away, whatever else happens.
        raise exception using errcode = 'SHM00', message = 'read';
    exception when sqlstate 'SHM00' then
        return answer;
    when others then
        get stacked diagnostics message = message_text, state = returned_sqlstate, context = pg_exception_context;
        -- Any table would do for that one: the key may be as good as it can be.
        if shardman.raised_by(context) is not null then
            return jsonb_build_object(
                'problem', format('the event trigger %I does not let the cluster make tables: %s', shardman.raised_by(context), message),
                'hint', format('Let it pass what %I does, on every node, or disable it', pg_get_userbyid(shardman.our_role())));
        end if;
        -- Where split_list finds nothing wrong PostgreSQL has only this to say: syntax error at or near ")".
        if state = '42601' and items is not null then
            message := 'it is no list of columns, functions of columns, and expressions in parentheses';
        end if;
        return jsonb_build_object(
            'problem', format('"%s" cannot be a key: %s', expr, replace(message, 'shardman_probe_key', relation::regclass::text)),
            'hint', case state
                when '42703' then (
                    select coalesce('The columns are ' || string_agg(quote_ident(attname), ', ' order by attnum), 'The table has no columns')
                      from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped)
                when '42P17' then 'Only columns and immutable functions of them can say where a row lies'
                else 'Give a column, several with commas between, or an expression like lower(name) or (a + b)' end);
    end;
end
$$;
comment on function shardman.read_key(oid, text) is
    'what expr means for a table; leaves nothing behind. A table is partitioned by it to find out: nothing else knows better';

create or replace function shardman.probed_key(probe oid) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
    p        pg_partitioned_table;
    sqls     text[] := '{}';
    exprs    text[];
    parts    text[];
    key      jsonb := '[]';
    t        record;
begin
    select * into p from pg_partitioned_table where partrelid = probe;
    parts := shardman.split_list(substring(pg_get_partkeydef(probe) from '^HASH \((.*)\)$'));
    exprs := coalesce(shardman.split_list(pg_get_expr(p.partexprs, probe)), '{}');
    for i in 0 .. p.partnatts - 1 loop
        if p.partattrs[i] <> 0 then
            sqls := sqls || (select quote_ident(attname) from pg_attribute where attrelid = probe and attnum = p.partattrs[i]);
        else
            sqls := sqls || exprs[1];
            exprs := exprs[2:];
        end if;
        if sqls[i + 1] = any (sqls[:i]) then
            return jsonb_build_object('problem', format('%s is in the key twice', sqls[i + 1]), 'hint', 'Name it once');
        end if;
    end loop;
    execute format('create temp view shardman_probe_types as select %s from pg_temp.shardman_probe',
                   (select string_agg(format('%s as k%s', s, n), ', ' order by n) from unnest(sqls) with ordinality as u (s, n)));
    for t in
        select a.attnum, a.atttypid, y.typcollation, c.opcdefault, c.opcname, coalesce(l.collisdeterministic, true) as deterministic,
               (select attname from pg_attribute where attrelid = probe and attnum = p.partattrs[a.attnum - 1] and attnum > 0) as col
          from pg_attribute a join pg_type y on y.oid = a.atttypid
          join pg_opclass c on c.oid = p.partclass[a.attnum - 1]
          left join pg_collation l on l.oid = p.partcollation[a.attnum - 1]
         where a.attrelid = 'pg_temp.shardman_probe_types'::regclass order by a.attnum
    loop
        if not shardman.hashes_alike(t.atttypid) then
            return jsonb_build_object(
                'problem', format('values of %s have the type %s, whose hashes differ from server to server or are not known to agree',
                                  sqls[t.attnum], format_type(t.atttypid, null)),
                'hint', 'Shard by another column, or by an immutable function of this one that gives a built-in type');
        elsif not t.deterministic then
            return jsonb_build_object(
                'problem', format('%s has a non-deterministic collation: its hash depends on the server''s version of it', sqls[t.attnum]),
                'hint', 'Shard by another column, or give this one a deterministic collation');
        elsif not t.opcdefault then
            return jsonb_build_object(
                'problem', format('%s names the operator class %s', parts[t.attnum], t.opcname),
                'hint', 'Leave the operator class out');
        end if;
        key := key || jsonb_build_object(
            'sql', sqls[t.attnum], 'column', t.col, 'part_sql', parts[t.attnum],
            'type', format_type(t.atttypid, null), 'collatable', t.typcollation <> 0,
            'uses', case when t.col is not null then jsonb_build_array(t.col)
                         else shardman.columns_of(sqls[t.attnum]) end);
    end loop;
    return jsonb_build_object('key', key, 'partition_key',
        case when key -> 0 ->> 'column' is null then '(' || sqls[1] || ')' else sqls[1] end);
end
$$;
comment on function shardman.probed_key(oid) is 'reads the key off a table that is partitioned by it';

create or replace function shardman.columns_of(expression text) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    found_ jsonb;
begin
    execute format('create temp view shardman_probe_columns as select %s as k from pg_temp.shardman_probe', expression);
    select coalesce(jsonb_agg(distinct a.attname), '[]') into found_
      from pg_rewrite r
      join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
       and d.refclassid = 'pg_class'::regclass and d.refobjid = 'pg_temp.shardman_probe'::regclass and d.refobjsubid > 0
      join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
     where r.ev_class = 'pg_temp.shardman_probe_columns'::regclass;
    drop view pg_temp.shardman_probe_columns;
    return found_;
end
$$;
comment on function shardman.columns_of(text) is 'the columns that an expression uses; inside read_key only';
