-- A planned restart of a node is no failover (commands/maintain.py).

alter table shardman.nodes add column away_until timestamptz;
comment on column shardman.nodes.away_until is
    'until when the node may be away, by the lord''s clock, without others taking over its partitions; null: it is not in maintenance. '
    'Until it is null again commits do not wait for replicas on the node, and none of them is promoted';
