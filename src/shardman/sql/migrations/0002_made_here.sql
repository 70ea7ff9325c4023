alter table shardman.local add column made text[] not null default '{}';
comment on column shardman.local.made is
    'what joining the cluster made in this database beside the schema shardman: "extension …", "setting …", "schema …"; '
    'add_node takes it back when it fails';
