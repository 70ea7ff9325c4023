-- name: aside
select schema_name, table_name, part_name, cmd_id, cmd_type, since, bytes, rows from shardman.set_aside order by 1, 2

-- name: primaries
select p.part_name, p.owner
  from shardman.partitions p join shardman.nodes n on n.id = p.owner and n.worker_status = 'active'
 where p.prv is null

-- name: here
select part_name from shardman.status_partitions where here = 'primary'

-- name: drop
select shardman.drop_set_aside(%(schema)s, %(table)s)
