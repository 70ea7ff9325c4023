-- The options of a command as its SQL function writes them to cmd_opts.

-- name: add_node
select array[shardman.format_connstring(shardman.parse_connstring(%s) - shardman.secret_parameters()), %s] as opts

-- name: rm_node
select array[%s::int::text, %s::bool::text] as opts

-- name: create_hash_partitions
select array[%s::int::text, shardman.normal_name(%s), %s, %s::int::text, %s::bool::text] as opts

-- name: move_part
select array[shardman.normal_name(%s), %s::int::text, %s::int::text] as opts

-- name: rebalance
select array[shardman.normal_name(%s), %s] as opts

-- name: create_replica
select array[shardman.normal_name(%s), %s::int::text] as opts

-- name: rm_replica
select array[shardman.normal_name(%s), %s::int::text] as opts

-- name: switch_primary
select array[shardman.normal_name(%s), %s::int::text] as opts

-- name: set_replevel
select array[shardman.normal_name(%s), %s::int::text] as opts

-- name: set_sync
select array[shardman.normal_name(%s), %s::bool::text] as opts

-- name: set_zone
select array[%s::int::text, %s] as opts

-- name: drain_node
select array[%s::int::text, %s::bool::text] as opts

-- name: suspend_replicas
select array[%s::int::text, %s::int::text] as opts

-- name: failover
select array[%s::int::text, %s::bool::text] as opts
