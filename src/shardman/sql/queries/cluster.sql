-- name: local
select cluster, node_id, lord, epoch from shardman.local

-- name: nodes
select id, connstring, worker_status::text as status, lord, zone, draining, system_id from shardman.nodes order by id

-- name: tables
select relation, expr, partitions_count, initial_node, definition, replevel, sync from shardman.tables

-- name: copies
select part_name, owner, prv, nxt, relation, stale_since from shardman.partitions order by relation, length(part_name), part_name, owner
