-- name: table
-- A table by its name, with the columns that COPY may write, and their types and defaults.
select n.nspname as schema, c.relname as name, a.columns, a.types, a.defaults
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  cross join lateral (
      select pg_catalog.array_agg(a.attname::text order by a.attnum) as columns,
             pg_catalog.array_agg(pg_catalog.format_type(a.atttypid, a.atttypmod) order by a.attnum) as types,
             pg_catalog.array_agg(pg_catalog.pg_get_expr(d.adbin, d.adrelid) order by a.attnum) as defaults
        from pg_catalog.pg_attribute a left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
       where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') a
 where c.oid = pg_catalog.to_regclass(%s) and c.relkind in ('r', 'p', 'f', 'v')

-- name: copy_in
copy {} ({}) from stdin (format csv, encoding 'UTF8')

-- name: hashes
-- The hashes that values have in a column of the key: one field's hash is that of the row.
select pg_catalog.hash_record_extended(row(v::{}), 8816678312871386365) from pg_catalog.unnest(%s::text[]) with ordinality as u (v, i) order by i

-- name: defaults
select ({})::text from pg_catalog.generate_series(1, %s)

-- name: copy_out
copy (select {} from {}) to stdout (format csv, encoding 'UTF8')

-- name: one_snapshot
set transaction isolation level repeatable read, read only
