-- name: nodes
select id, connstring, worker_status::text as status, lord, options from shardman.nodes order by id

-- name: shapes
select relation, kind, aspect, items, names from shardman.shapes()
union all
select relation, kind, aspect, items, names from shardman.object_shapes()
union all
select relation, kind, aspect, items, names from shardman.role_shapes()
