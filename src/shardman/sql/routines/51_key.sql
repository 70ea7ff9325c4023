-- The key: what a user gave as expr, read by PostgreSQL itself.

create or replace function shardman.bottom_type(type oid) returns oid
language plpgsql stable strict parallel safe set search_path = pg_catalog as $$
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
language sql stable strict parallel safe set search_path = pg_catalog as $$
    select shardman.bottom_type(type) = any (array[
        'int2', 'int4', 'int8', 'oid', 'numeric', 'float4', 'float8', 'bool', 'text', 'varchar', 'bpchar', 'name',
        '"char"', 'bytea', 'uuid', 'date', 'time', 'timetz', 'timestamp', 'timestamptz', 'interval', 'inet', 'cidr',
        'macaddr', 'macaddr8', 'jsonb']::regtype[]::oid[])
$$;
comment on function shardman.hashes_alike(oid) is
    'whether a value of this type has the same hash on every server of the same encoding. An enum''s hash is that of '
    'its oid, which each server has of its own; of types that are not built in nobody knows';

create or replace function shardman.equal_is_same(type oid) returns bool
language sql stable strict parallel safe set search_path = pg_catalog as $$
    select shardman.bottom_type(type) = any (array[
        'int2', 'int4', 'int8', 'oid', 'bool', 'text', 'varchar', 'name', '"char"', 'bytea', 'uuid', 'date', 'time',
        'timestamp', 'timestamptz', 'macaddr', 'macaddr8']::regtype[]::oid[])
$$;
comment on function shardman.equal_is_same(oid) is
    'whether equal values of this type cannot be told apart, so that every function gives the same for them; '
    'not so for numeric (1.0 and 1.00), float (0 and -0), interval and the like';

-- What comes back:
--   {"problem": …, "hint": …}, or
--   {"key": [{"sql": value, "column": name or null, "part_sql": as in PARTITION BY, "type": …, "collatable": bool,
--             "uses": names of the columns in it}, …],
--    "slot_key": …}
create or replace function shardman.read_key(relation oid, expr text) returns jsonb
language plpgsql set search_path = pg_catalog as $$
declare
    items   text[];
    message text;
    state   text;
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
        perform set_config('search_path', 'pg_catalog', true);
        answer := shardman.probed_key(relation, 'pg_temp.shardman_probe_key'::regclass);
        -- Takes both tables away, whatever else happens.
        raise exception using errcode = 'SHM00', message = 'read';
    exception when sqlstate 'SHM00' then
        return answer;
    when others then
        get stacked diagnostics message = message_text, state = returned_sqlstate;
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

create or replace function shardman.probed_key(relation oid, probe oid) returns jsonb
language plpgsql set search_path = pg_catalog set standard_conforming_strings = on as $$
declare
    p        pg_partitioned_table;
    sqls     text[] := '{}';
    exprs    text[];
    parts    text[];
    key      jsonb := '[]';
    t        record;
    i        int;
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
                         else shardman.columns_of(relation, sqls[t.attnum]) end);
    end loop;
    return jsonb_build_object('key', key, 'slot_key',
        case when key -> 0 ->> 'column' is null then '(' || sqls[1] || ')' else sqls[1] end);
end
$$;
comment on function shardman.probed_key(oid, oid) is 'reads the key off a table that is partitioned by it';

create or replace function shardman.columns_of(relation oid, expression text) returns jsonb
language plpgsql set search_path = pg_catalog as $$
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
comment on function shardman.columns_of(oid, text) is 'the columns that an expression uses; inside read_key only';
