-- name: whole
-- One statement sees one snapshot.
select (select cluster from shardman.local),
       (select coalesce(json_agg(n order by n.id), '[]')
          from (select id, connstring, worker_status::text as status, lord, zone, draining, system_id,
                       away_until is not null as maintained
                  from shardman.nodes) as n),
       (select coalesce(json_agg(t), '[]')
          from (select relation, expr, partitions_count, initial_node, definition, replevel, sync, colocation
                  from shardman.tables) as t),
       (select coalesce(json_agg(c order by c.relation, length(c.part_name), c.part_name, c.owner), '[]')
          from (select part_name, owner, prv, nxt, relation, stale_since from shardman.partitions) as c),
       (select coalesce(json_agg(s), '[]')
          from (select t.relation, array(select k ->> 'to' from jsonb_array_elements(t.definition -> 'foreign_keys') as k order by 1) as refers,
                       array(select c.node from shardman.shared_copies c where c.relation = t.relation order by 1) as nodes
                  from shardman.shared_tables t) as s)
