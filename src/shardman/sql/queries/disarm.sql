-- What is asked before a copy of a node is made inert.

-- name: who
select to_regprocedure('shardman.disarm()') is not null

-- name: identity
select cluster, node_id, shardman.is_copy() from shardman.local

-- name: address
select n.options, s.password, a.pid, a.backend_start
  from shardman.local l join shardman.nodes n on n.id = l.node_id
  left join shardman.node_secrets s on s.node_id = n.id
 cross join pg_stat_activity a
 where a.pid = pg_backend_pid()

-- name: session
-- There: whether it is the same server, for it has the session that asks.
select from pg_stat_activity where pid = %s and backend_start = %s
