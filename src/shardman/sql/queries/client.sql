-- name: tables
-- The sharded and the shared tables as this node's catalogs have them: everybody may read those, and they are what the
-- node itself goes by. Without a route a partition's rows are here.
with parents as materialized (
    select p.*, c.relname, c.relnamespace
      from pg_catalog.pg_partitioned_table p join pg_catalog.pg_class c on c.oid = p.partrelid
     where p.partstrat = 'h' and not c.relispartition
), parts as materialized (
    select p.partrelid as parent, s.oid as part, n.nspname, s.relname, leaf.oid as leaf, leaf.relname as leafname, v.srvname,
           pg_catalog.regexp_match(pg_catalog.pg_get_expr(s.relpartbound, s.oid), 'modulus (\d+), remainder (\d+)') as place,
           (select o from pg_catalog.unnest(v.srvoptions) o where o like 'host=%') as host,
           (select o from pg_catalog.unnest(v.srvoptions) o where o like 'hostaddr=%') as hostaddr,
           (select o from pg_catalog.unnest(v.srvoptions) o where o like 'port=%') as port,
           (select o from pg_catalog.unnest(v.srvoptions) o where o like 'dbname=%') as dbname
      from parents p join pg_catalog.pg_inherits i on i.inhparent = p.partrelid
      join pg_catalog.pg_class s on s.oid = i.inhrelid join pg_catalog.pg_namespace n on n.oid = s.relnamespace
      left join pg_catalog.pg_inherits j on j.inhparent = s.oid
      left join pg_catalog.pg_class leaf on leaf.oid = j.inhrelid
      left join pg_catalog.pg_foreign_table f on f.ftrelid = leaf.oid
      -- Where others' servers lead, nobody's password goes.
      left join pg_catalog.pg_foreign_server v on v.oid = f.ftserver
                                              and v.srvowner = (select n.nspowner from pg_catalog.pg_namespace n where n.nspname = 'shardman')
), shared as (
    select t.tgrelid as oid from pg_catalog.pg_trigger t where t.tgname = 'A_shardman_lock'
), shapes as materialized (
    select a.attrelid,
           pg_catalog.array_agg(a.attname::text order by a.attnum) as columns,
           pg_catalog.array_agg(pg_catalog.concat_ws(' ', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attidentity,
                                                     a.attgenerated, pg_catalog.pg_get_expr(d.adbin, d.adrelid)) order by a.attnum) as shape,
           pg_catalog.array_agg(a.attname::text order by a.attnum)
               filter (where a.attidentity <> '' or pg_catalog.pg_get_expr(d.adbin, d.adrelid) ~ 'next_?val') as numbered,
           pg_catalog.array_agg(case when a.attcollation in (0, 100) and a.atttypid < 16384 then pg_catalog.format_type(a.atttypid, null) else '' end order by a.attnum) as types,
           pg_catalog.bool_or(a.atttypid >= 16384) as own_types
      from pg_catalog.pg_attribute a left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attnum > 0 and not a.attisdropped
       and a.attrelid in (select partrelid from parents union all select oid from shared
                          union all select part from parts where srvname is null
                          union all select leaf from parts where srvname is null)
     group by a.attrelid
)
select n.nspname as schema, c.relname as name, pg_catalog.pg_table_is_visible(c.oid) as visible, h.columns, h.types, h.shape,
       (select coalesce(pg_catalog.array_agg(a.attname::text), '{}') from pg_catalog.pg_index x join pg_catalog.pg_attribute a
            on a.attrelid = x.indrelid and a.attnum = any (x.indkey::pg_catalog.int2[]) where x.indrelid = c.oid and x.indisprimary) as primary,
       coalesce(h.numbered, '{}') as numbered, h.own_types, p.partrelid is null as shared,
       pg_catalog.row_security_active(c.oid) as policies,
       (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attname, pg_catalog.format_type(a.atttypid, null), a.atttypmod) order by u.i)
          from pg_catalog.unnest(p.partattrs::pg_catalog.int2[]) with ordinality as u (attnum, i)
          left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = u.attnum and u.attnum > 0) as key,
       (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(x.place[1], x.place[2], x.nspname, x.relname, x.leafname, x.srvname,
                                                                 x.host, x.hostaddr, x.port, x.dbname))
          from parts x where x.parent = c.oid) as parts,
       exists (select from pg_catalog.pg_class o where o.relnamespace = c.relnamespace
                  and o.relname = c.relname || '_' || (select pg_catalog.count(*) from parts x where x.parent = c.oid)) as next_taken,
       not exists (select from parts x join shapes l on l.attrelid in (x.part, x.leaf)
                    where x.parent = c.oid and x.srvname is null and l.shape <> h.shape) as alike
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join shapes h on h.attrelid = c.oid
  left join parents p on p.partrelid = c.oid
 where c.oid in (select partrelid from parents union all select oid from shared)

-- name: session
-- What statements depend on beside the tables.
select pg_catalog.current_schemas(true)::text[] as path,
       exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname = 'shardman' and c.relname = 'local' and pg_catalog.has_schema_privilege(n.oid, 'usage')
                  and pg_catalog.has_table_privilege(c.oid, 'select')) as sees_id,
       exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
                where n.nspname = 'shardman' and p.proname = 'transaction_place' and pg_catalog.has_schema_privilege(n.oid, 'usage')
                  and pg_catalog.has_function_privilege(p.oid, 'execute')) as has_place,
       pg_catalog.current_setting('server_encoding') as encoding,
       pg_catalog.current_setting('max_parallel_workers_per_gather')::int as workers,
       pg_catalog.current_setting('client_encoding') as sent_in,
       (select coalesce(pg_catalog.array_agg(distinct p.proname::text), '{}') from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
         where n.nspname not in ('pg_catalog', 'information_schema', 'shardman')) as functions,
       (select coalesce(pg_catalog.array_agg(distinct p.proname::text), '{}') from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
         where n.nspname not in ('pg_catalog', 'information_schema', 'shardman') and p.provolatile = 'v') as volatile,
       (select pg_catalog.jsonb_object_agg(s.name, s.setting) from pg_catalog.pg_settings s
         where s.name in ('search_path', 'TimeZone', 'DateStyle', 'IntervalStyle', 'bytea_output', 'extra_float_digits', 'row_security',
                          'standard_conforming_strings', 'array_nulls', 'xmlbinary', 'xmloption', 'lc_monetary', 'lc_numeric', 'lc_time',
                          'transform_null_equals', 'backslash_quote', 'escape_string_warning', 'quote_all_identifiers',
                          'default_transaction_isolation', 'default_transaction_read_only', 'default_transaction_deferrable',
                          'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'default_text_search_config',
                          'timezone_abbreviations')) as settings

-- name: id
select node_id from shardman.local

-- name: place
select node from shardman.transaction_place()

-- name: first_part
select shardman.first_part({0}, {1})

-- name: prepare
select shardman.other_part({0}); prepare transaction {0}

-- name: commit_prepared
commit prepared {0}

-- name: rollback_prepared
rollback prepared {0}

-- name: decide
select shardman.decide({0}, {1}); commit

-- name: settings
select pg_catalog.set_config(name, value, false)
  from unnest(%s::text[], %s::text[]) as s (name, value) where pg_catalog.current_setting(name, true) is distinct from value

-- name: listen
listen shardman_layout

-- name: inner_tables
-- Partitions, and the replicas that are no partition here: what lists of tables leave out.
select n.nspname::text, c.relname::text, pg_catalog.pg_table_is_visible(c.oid)
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relispartition or exists (select from pg_catalog.pg_constraint o where o.conrelid = c.oid and o.conname = 'shardman_partition')

-- name: listen_again
-- On a session that is opened in the place of one that broke.
listen {}
