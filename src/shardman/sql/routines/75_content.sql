-- The content of a table in one number, by which two copies are compared.

create or replace function shardman.value_hash(type_id oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- The same on every version, for the nodes of a cluster may differ. All other types go through their text: the hash of an
    -- enum is that of an oid, which differs from server to server, that of a text depends on its collation, and an
    -- extension's may call different values equal, as that of citext does.
    select coalesce(
        (select f.expression
           from (values ('int2', 'hashint2extended(%1$s, %2$s)'), ('int4', 'hashint4extended(%1$s, %2$s)'),
                        ('int8', 'hashint8extended(%1$s, %2$s)'), ('oid', 'hashoidextended(%1$s, %2$s)'),
                        ('float4', 'hashfloat4extended(%1$s, %2$s)'), ('float8', 'hashfloat8extended(%1$s, %2$s)'),
                        ('numeric', 'hash_numeric_extended(%1$s, %2$s)'), ('uuid', 'uuid_hash_extended(%1$s, %2$s)'),
                        ('timestamp', 'timestamp_hash_extended(%1$s, %2$s)'),
                        ('timestamptz', 'timestamp_hash_extended(%1$s at time zone ''UTC'', %2$s)'),
                        ('bool', 'hashint4extended(%1$s::int4, %2$s)'), ('jsonb', 'jsonb_hash_extended(%1$s, %2$s)'),
                        -- Older versions have no function that takes these.
                        ('date', 'hash_record_extended(row(%1$s), %2$s)'), ('time', 'hash_record_extended(row(%1$s), %2$s)'),
                        ('bytea', 'hash_record_extended(row(%1$s), %2$s)')) as f (type_name, expression)
          where to_regtype(f.type_name) = type_id),
        case when type_id < 16384 then 'hashtextextended(%1$s::text collate "C", %2$s)'
             -- Not a cast, which may be a function of the type's owner.
             else 'case num_nulls(%1$s) when 0 then hashtextextended(concat(%1$s) collate "C", %2$s) end' end)
$$;
comment on function shardman.value_hash(oid) is
    'the expression that hashes a value %1$s of this type, with the seed %2$s, to a bigint: a format';

create or replace function shardman.row_hash(relation text, alias text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Column by column, for the old table of a conversion may have dropped ones in between, and because this is three times
    -- as fast as hash_record_extended. A seed of its own for each column tells apart rows that exchanged values.
    select coalesce(string_agg(format('coalesce(' || shardman.value_hash(type_id) || ', %2$s)', col, seed), ' # ' order by seed),
                    '0::bigint')
      from (select format('%I.%I', alias, a.attname) as col,
                   case when t.typbasetype <> 0 then t.typbasetype else t.oid end as type_id,
                   row_number() over (order by a.attnum) as seed
              from pg_attribute a join pg_type t on t.oid = a.atttypid
             where a.attrelid = (select shardman.table_itself(relation)) and a.attnum > 0 and not a.attisdropped) as columns
$$;
comment on function shardman.row_hash(text, text) is 'the expression that hashes a row of a table under this alias';

create or replace function shardman.row_bucket(relation text, alias text, buckets int) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('((%s) & %s)::int', shardman.row_hash(relation, alias), buckets - 1)
$$;
comment on function shardman.row_bucket(text, text, int) is
    'the expression that gives the bucket of a row of a table under this alias; buckets: a power of two';

create or replace function shardman.content_buckets(relation text, buckets int)
    returns table (bucket int, rows bigint, hash text)
language plpgsql stable set search_path = pg_catalog, pg_temp set constraint_exclusion = off as $$
begin
    perform shardman.need_trusted_to_read(shardman.find_relation(relation));
    return query execute format('select %s, count(*), sum(%s)::text from only %s as t group by 1', shardman.row_bucket(relation, 't', buckets),
                                shardman.row_hash(relation, 't'), shardman.find_relation(relation)::regclass);
end
$$;
comment on function shardman.content_buckets(text, int) is
    'as content_hash, for each of so many parts of the table, into which its rows are sorted by their content';

create or replace function shardman.content_hash(relation text, out rows bigint, out hash text)
language plpgsql stable set search_path = pg_catalog, pg_temp set constraint_exclusion = off as $$
begin
    perform shardman.need_trusted_to_read(shardman.find_relation(relation));
    execute format('select count(*), coalesce(sum(%s), 0)::text from only %s as t', shardman.row_hash(relation, 't'),
                   shardman.find_relation(relation)::regclass)
       into rows, hash;
end
$$;
comment on function shardman.content_hash(text) is
    'number of rows and an order-independent hash of their content: two copies that are equal agree in both';
