-- Whose database this is.

-- name: has_tables
select count(*) = 2 from unnest(array['shardman.local', 'shardman.lease']) as t where to_regclass(t) is not null

-- name: self
select lord, cluster, node_id from shardman.local

-- name: is_lord
select exists (select from shardman.nodes n, shardman.local l where n.lord and n.id = l.node_id)

-- name: term
select shardman.setting('lord_term', '0')::bigint, (select id from shardman.nodes where lord)

-- name: peers
select n.options, s.password from shardman.nodes n left join shardman.node_secrets s on s.node_id = n.id
 where n.worker_status = 'active' and n.id is distinct from (select node_id from shardman.local)
