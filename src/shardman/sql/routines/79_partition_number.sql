-- In which partition a row lies, as an expression: what PostgreSQL computes to route it, for whoever wants to know
-- before the row is anywhere. PostgreSQL has satisfies_hash_partition, which must be asked once for each partition.
--
-- The hash of a row: of each column of the key that is not null the extended hash under one seed, folded by
-- hash_combine64; all unsigned with 64 bits. SQL has signed ones, and raises where they overflow: so sums are made of halves.

create or replace function shardman.hash_combine64(a bigint, b bigint) returns bigint
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    up   constant bigint := a << 54;
    down constant bigint := (a >> 7) & 144115188075855871;
    low  constant bigint := (b & 4294967295) + 367372515 + (up & 4294967295) + (down & 4294967295);
begin
    if b is null then
        return a;
    end if;
    return a # (((((b >> 32) & 4294967295) + 1235285213 + ((up >> 32) & 4294967295) + (down >> 32) + (low >> 32)) << 32)
                | (low & 4294967295));
end
$$;
comment on function shardman.hash_combine64(bigint, bigint) is 'PostgreSQL''s function of that name; a null b leaves a as it is, as a null in a key does';

create or replace function shardman.key_hashes(parent oid, definition jsonb) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- By the type's own hash function where that takes the type itself. Else inside of a row, which finds it by the type and costs
    -- more; a row of one column has the hash of that column.
    select array_agg(case when f.proargtypes[0] = c.opcintype and f.prorettype = 'bigint'::regtype and n.nspname = 'pg_catalog'
                          then format('pg_catalog.%I(%s, 8816678312871386365)', f.proname, e ->> 'sql')
                          else format('case pg_catalog.num_nulls(%1$s) when 0 then pg_catalog.hash_record_extended(row(%1$s), 8816678312871386365) end', e ->> 'sql') end
                     order by u.i)
      from pg_partitioned_table p
     cross join unnest(p.partclass::oid[]) with ordinality as u (opclass, i)
     cross join lateral (select definition -> 'key' -> (u.i::int - 1) as e) as k
      join pg_opclass c on c.oid = u.opclass
      join pg_amproc a on a.amprocfamily = c.opcfamily and a.amproclefttype = c.opcintype and a.amprocrighttype = c.opcintype and a.amprocnum = 2
      join pg_proc f on f.oid = a.amproc::oid
      join pg_namespace n on n.oid = f.pronamespace
     where p.partrelid = parent
$$;
comment on function shardman.key_hashes(oid, jsonb) is 'the expressions that hash the columns of a key as PostgreSQL does to route a row';

create or replace function shardman.partition_number(parent oid, definition jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    hashes constant text[] := shardman.key_hashes(parent, definition);
    m      constant bigint := (definition ->> 'partitions_count')::bigint;
    low    text;
    high   text;
    folded text := '0';
begin
    if m = 1 then
        return '0::bigint';
    elsif array_length(hashes, 1) = 1 then
        -- hash_combine64(0, hash), inline: it is computed for each row of a table.
        low := format('(((%s) & 4294967295) + 367372515)', hashes[1]);
        high := format('((((%s) >> 32) & 4294967295) + 1235285213 + (%s >> 32) & 4294967295)', hashes[1], low);
        return format('coalesce((%s * %s + (%s & 4294967295)) %% %s, 0)', high, 4294967296 % m, low, m);
    end if;
    for i in 1 .. array_length(hashes, 1) loop
        folded := format('shardman.hash_combine64(%s, %s)', folded, hashes[i]);
    end loop;
    return format('(select ((h >> 32) & 4294967295) * %s %% %s + (h & 4294967295) from (select %s as h offset 0) as shardman_hash) %% %s',
                  4294967296 % m, m, folded, m);
end
$$;
comment on function shardman.partition_number(oid, jsonb) is
    'the expression over the columns of a table that gives the number of a row''s partition. parent: partitioned so, on this node';
