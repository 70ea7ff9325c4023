-- What shardman dump and shardman restore ask.

-- name: tables
select t.relation, t.expr, t.partitions_count, t.definition,
       shardman.plain_table(t.definition) as create_sql, shardman.plain_indexes(t.definition) as index_sql,
       array(select distinct f ->> 'to' from jsonb_array_elements(t.definition -> 'foreign_keys') f order by 1) as refers,
       shardman.plain_rights(coalesce(shardman.with_rights(t.definition), t.definition)) as rights_sql
  from shardman.tables t
 where %(tables)s::text[] is null or t.relation = any (array(select shardman.normal_name(x) from unnest(%(tables)s::text[]) as x))
 order by t.relation

-- name: normal
select shardman.normal_name(%s) as name

-- name: primaries
select p.part_name, p.owner, p.relation, shardman.part_number(p.part_name) as k
  from shardman.partitions p where p.prv is null and p.relation = any (%s) order by p.relation, k

-- name: data
-- On the owner: a data table as SQL writes it, and its columns; null where it is not in use here.
select shardman.sql_name(d) as name, shardman.plain_columns(d, null) as columns
  from shardman.data_table(%s) as d where shardman.is_in_use(d)
