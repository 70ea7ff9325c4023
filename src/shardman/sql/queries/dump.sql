-- What shardman dump and shardman restore ask.

-- name: tables
select t.relation, t.expr, t.partitions_count, t.definition,
       shardman.plain_table(t.definition) as create_sql, shardman.plain_indexes(t.definition) as index_sql,
       array(select distinct f ->> 'to' from jsonb_array_elements(t.definition -> 'foreign_keys') f
              where not f ? 'to_columns' order by 1) as refers,
       (select min(o.relation) from shardman.tables o where o.colocation = t.colocation and o.relation < t.relation) as colocate_with,
       shardman.plain_inside(t.definition) as inside_sql,
       array(select * from shardman.plain_row_triggers(t.definition)) as triggers, t.definition -> 'row_triggers' ->> 'path' as trigger_path,
       (select coalesce(json_agg(json_build_object('name', f ->> 'name', 'to', f ->> 'to', 'sql', f ->> 'sql')), '[]')
          from jsonb_array_elements(t.definition -> 'foreign_keys') f where f ? 'to_columns') as inside,
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

-- name: shared
-- Where a copy of each can be read; null where none is in use.
select t.relation, min(c.node) as node from shardman.shared_tables t left join shardman.shared_copies c on c.relation = t.relation
 where %(tables)s::text[] is null or t.relation = any (array(select shardman.normal_name(x) from unnest(%(tables)s::text[]) as x))
 group by t.relation order by t.relation

-- name: shared_data
-- On that node: the copy as SQL writes it, and its columns; null where it is not in use here.
select shardman.sql_name(c.relation) as name, shardman.plain_columns(c.relation, null) as columns
  from shardman.shared_copies c
 where c.relation = %s and c.node = shardman.my_id() and shardman.find_relation(c.relation) is not null

-- name: shared_table
-- On that node, as it is by now.
select d as definition, shardman.plain_shared(d) as create_sql, shardman.plain_indexes(d - 'foreign_keys' || '{"foreign_keys": []}') as index_sql,
       (select coalesce(jsonb_agg(jsonb_build_object('to', r.target, 'sql', r.line)), '[]') from shardman.plain_references(d) r) as foreign_keys, array(select * from shardman.plain_triggers(d)) as triggers,
       shardman.plain_rights(d) as rights_sql
  from (select shardman.define_shared(shardman.find_relation(%s)) || jsonb_build_object('relation', %s::text)) as x (d)

-- name: spreads_ddl
select exists (select from pg_event_trigger where evtname = 'shardman_ddl_start' and evtenabled <> 'D') as spreads
