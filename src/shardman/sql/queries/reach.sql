-- name: nodes
select id, connstring, worker_status::text as status, lord, options from shardman.nodes order by id
