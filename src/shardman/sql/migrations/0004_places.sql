-- Has a second argument now.
drop function if exists shardman.add_node(text);
alter table shardman.nodes
    add column zone text check (zone ~ '\S'),
    add column draining bool not null default false;
comment on column shardman.nodes.zone is
    'what may fail together with others of the same zone, say a rack or a site: copies of a partition go to different zones where they can; '
    'null: a zone of its own';
comment on column shardman.nodes.draining is 'whether the node is being emptied, or is kept empty, by drain_node: nothing new is placed there';
