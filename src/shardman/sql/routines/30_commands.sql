-- The commands: a function each, which looks at what can be looked at here and submits it (29_inbox.sql).

create or replace function shardman.need(argument text, name text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if argument is null then
        raise exception '% must not be null', name using errcode = 'null_value_not_allowed', hint = format('Give a value for %s.', name);
    end if;
end
$$;

create or replace function shardman.need_zone(zone text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if btrim(zone, E' \t\n\r') = '' then
        raise exception 'zone is empty' using errcode = 'invalid_parameter_value', hint = 'Give null for a node that is a zone of its own.';
    end if;
end
$$;

create or replace function shardman.add_node(connstring text, zone text default null) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(connstring, 'connstring');
    perform shardman.need_zone(zone);
    return shardman.submit('add_node',
        json_build_object(
            'connstring', shardman.format_connstring(shardman.parse_connstring(connstring) - shardman.secret_parameters()),
            'zone', zone),
        connstring);
end
$$;
comment on function shardman.add_node(text, text) is
    'adds a server to the cluster as a worker; connstring: any libpq connection string that reaches it from every node; zone: what it '
    'may fail together with, say a rack: copies of a partition go to different zones where they can';

create or replace function shardman.set_zone(node_id int, zone text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    perform shardman.need_zone(zone);
    return shardman.submit('set_zone', json_build_object('node_id', node_id, 'zone', zone));
end
$$;
comment on function shardman.set_zone(int, text) is
    'says what a worker may fail together with; null: with no other; rebalance then moves copies to different zones where they can';

create or replace function shardman.drain_node(node_id int, drain bool default true) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    return shardman.submit('drain_node', json_build_object('node_id', node_id, 'drain', coalesce(drain, true)));
end
$$;
comment on function shardman.drain_node(int, bool) is
    'moves all copies of partitions off a worker, say before rm_node, and places no new ones on it; with drain => false it may have some again';

create or replace function shardman.maintain(node_id int, seconds int default 300, maintain bool default true) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    if seconds is null or seconds not between 1 and 86400 then
        raise exception 'seconds is %, it must be from 1 to 86400', coalesce(seconds::text, 'null')
            using errcode = 'invalid_parameter_value', hint = 'For longer than a day, drain the node.';
    end if;
    return shardman.submit('maintain', json_build_object('node_id', node_id, 'seconds', seconds, 'maintain', coalesce(maintain, true)));
end
$$;
comment on function shardman.maintain(int, int, bool) is
    'lets a worker be away for some seconds, say for a restart, without others taking over its partitions; commits do not wait for '
    'its replicas meanwhile; with maintain => false it ends before';

create or replace function shardman.rm_node(node_id int, force bool default false) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    return shardman.submit('rm_node', json_build_object('node_id', node_id, 'force', coalesce(force, false)));
end
$$;
comment on function shardman.rm_node(int, bool) is
    'removes a worker; without force it must hold no partitions; its data stay on it';

create or replace function shardman.create_hash_partitions(
    node_id int, relation text, expr text, partitions_count int default null, rebalance bool default true,
    colocate_with text default null) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    perform shardman.need(relation, 'relation');
    perform shardman.need(expr, 'expr');
    if colocate_with is null then
        perform shardman.need(partitions_count::text, 'partitions_count');
    end if;
    if partitions_count not between 1 and 4096 then
        raise exception 'partitions_count is %, it must be from 1 to 4096', partitions_count
            using errcode = 'invalid_parameter_value', hint = 'Choose a few partitions for each node you may ever have.';
    elsif btrim(expr, E' \t\n\r') = '' then
        raise exception 'expr is empty' using errcode = 'invalid_parameter_value', hint = 'Name the column to shard by.';
    end if;
    return shardman.submit('create_hash_partitions',
        json_build_object('node_id', node_id, 'relation', shardman.normal_name(relation), 'expr', expr,
                          'partitions_count', partitions_count, 'rebalance', coalesce(rebalance, true),
                          'colocate_with', shardman.normal_name(colocate_with)));
end
$$;
comment on function shardman.create_hash_partitions(int, text, text, int, bool, text) is
    'shards the table relation, which lies on worker node_id, by the hash of expr (a column, several, or an immutable '
    'expression) into partitions_count partitions; with rebalance they are spread over all workers at once. With colocate_with '
    'they are as many as that sharded table has, and lie, from then on, where its partitions of the same numbers do';

create or replace function shardman.move_part(part_name text, dest int, src int default null) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(part_name, 'part_name');
    perform shardman.need(dest::text, 'dest');
    return shardman.submit('move_part',
        json_build_object('part_name', shardman.normal_name(part_name), 'dest', dest, 'src', src));
end
$$;
comment on function shardman.move_part(text, int, int) is
    'moves a copy of a partition from worker src (default: where the primary is) to worker dest while it is read and written';

create or replace function shardman.rebalance(relation text, by text default 'number') returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    if by is distinct from 'number' and by is distinct from 'bytes' then
        raise exception 'rebalance cannot even out by %', coalesce(by, 'null')
            using errcode = 'invalid_parameter_value', hint = 'Use number (of partitions) or bytes.';
    end if;
    return shardman.submit('rebalance', json_build_object('relation', shardman.normal_name(relation), 'by', by));
end
$$;
comment on function shardman.rebalance(text, text) is
    'spreads the partitions of a table evenly over the workers by the fewest moves; by: number of partitions, or bytes';

create or replace function shardman.refresh_table(relation text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    return shardman.submit('refresh_table', json_build_object('relation', shardman.normal_name(relation)));
end
$$;
comment on function shardman.refresh_table(text) is
    'writes down what a sharded table is now, as nodes that are added and partitions that move get it; DDL submits it by itself';

create or replace function shardman.sync_roles(node int default 0, role text default null) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(node::text, 'node');
    return shardman.submit('sync_roles', json_build_object('node', node, 'role', role));
end
$$;
comment on function shardman.sync_roles(int, text) is
    'makes the roles of a node that have rights on sharded tables, or one role of it, the same on all nodes: attributes, password, settings, '
    'memberships; superusers never';

create or replace function shardman.create_restore_point(point text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(point, 'point');
    return shardman.submit('create_restore_point', json_build_object('point', point));
end
$$;
comment on function shardman.create_restore_point(text) is
    'makes a restore point (pg_create_restore_point) on all nodes at an instant at which no transaction of shardman.connect over several nodes is half done';

create or replace function shardman.drop_table(relation text, aside bool default false, follow bool default false) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(aside::text, 'aside');
    perform shardman.need(follow::text, 'follow');
    return shardman.submit('drop_table', json_build_object('relation', shardman.normal_name(relation), 'aside', aside, 'follow', follow));
end
$$;
comment on function shardman.drop_table(text, bool, bool) is
    'drops a sharded table, with all its rows and replicas, or a shared one, on all nodes; nothing may be made of it. aside: also what failovers have set aside of it';

create or replace function shardman.restore_layout(relation text, node_id int) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(node_id::text, 'node_id');
    return shardman.submit('restore_layout', json_build_object('relation', shardman.normal_name(relation), 'node_id', node_id));
end
$$;
comment on function shardman.restore_layout(text, int) is
    'lets a plain table of a worker lie as the table of its name did that DROP TABLE has dropped; CREATE TABLE submits it by itself';

create or replace function shardman.forget_layout(relation text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    return shardman.submit('forget_layout', json_build_object('relation', shardman.normal_name(relation)));
end
$$;
comment on function shardman.forget_layout(text) is 'lets all nodes forget how a table lay that DROP TABLE has dropped: one of its name stays plain';

create or replace function shardman.drop_aside(node_id int, table_name text default null, also_found bool default false) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    perform shardman.need(also_found::text, 'also_found');
    return shardman.submit('drop_aside', json_build_object('node_id', node_id, 'table_name', shardman.normal_name(table_name), 'also_found', also_found));
end
$$;
comment on function shardman.drop_aside(int, text, bool) is
    'drops what failovers have set aside on a node, one table or all, where the primaries of its rows are up elsewhere';

create or replace function shardman.set_partitions_count(relation text, partitions_count int) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(partitions_count::text, 'partitions_count');
    if partitions_count < 1 or partitions_count > 4096 then
        raise exception 'partitions_count is %, it must be from 1 to 4096', partitions_count using errcode = 'invalid_parameter_value',
            hint = 'Choose a multiple or a divisor of the number that the table has.';
    end if;
    return shardman.submit('set_partitions_count', json_build_object('relation', shardman.normal_name(relation), 'partitions_count', partitions_count));
end
$$;
comment on function shardman.set_partitions_count(text, int) is
    'gives a sharded table more or fewer partitions, a multiple or a divisor of today''s number, while it is read and written; all nodes must be up';

create or replace function shardman.colocate(relation text, colocate_with text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(colocate_with, 'colocate_with');
    return shardman.submit('colocate', json_build_object('relation', shardman.normal_name(relation), 'colocate_with', shardman.normal_name(colocate_with)));
end
$$;
comment on function shardman.colocate(text, text) is
    'lays the partitions and replicas of a sharded table where those of another one are, while both are used; from then on they go together';

create or replace function shardman.uncolocate(relation text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    return shardman.submit('uncolocate', json_build_object('relation', shardman.normal_name(relation)));
end
$$;
comment on function shardman.uncolocate(text) is
    'takes a table out of its group of colocated ones: its partitions stay where they are, and go alone from then on';

create or replace function shardman.rename_table(relation text, new_name text, follow bool default false) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(new_name, 'new_name');
    perform shardman.need(follow::text, 'follow');
    -- For the table's owner, who may submit nothing else.
    if not shardman.may_administer() then
        perform shardman.need_owner(shardman.normal_name(relation));
    end if;
    return shardman.submit('rename_table', json_build_object('relation', shardman.normal_name(relation), 'new_name', shardman.normal_name(new_name), 'follow', follow));
end
$$;
comment on function shardman.rename_table(text, text, bool) is
    'gives a sharded or shared table, for its owner, another name or another schema, and partitions with it; all nodes must be up. follow: only if ALTER TABLE '
    'has called it so, and not otherwise since, which submits this by itself';

create or replace function shardman.unshard_table(relation text, node_id int, aside bool default false) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(node_id::text, 'node_id');
    perform shardman.need(aside::text, 'aside');
    return shardman.submit('unshard_table', json_build_object('relation', shardman.normal_name(relation), 'node_id', node_id, 'aside', aside));
end
$$;
comment on function shardman.unshard_table(text, int, bool) is
    'makes a sharded table a plain table of worker node_id again, while it is read and written; on other nodes it is gone then. aside: also '
    'drops what failovers have set aside of it';

create or replace function shardman.create_shared_table(relation text, node_id int) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(node_id::text, 'node_id');
    return shardman.submit('create_shared_table', json_build_object('relation', shardman.normal_name(relation), 'node_id', node_id));
end
$$;
comment on function shardman.create_shared_table(text, int) is
    'gives every worker a full copy of the plain table relation of worker node_id; from each of them all copies are written. Of a table that '
    'is shared already, all copies become like that of node_id';

create or replace function shardman.unshare_table(relation text, node_id int) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(node_id::text, 'node_id');
    return shardman.submit('unshare_table', json_build_object('relation', shardman.normal_name(relation), 'node_id', node_id));
end
$$;
comment on function shardman.unshare_table(text, int) is
    'makes a shared table a plain table of worker node_id again, and drops all its other copies';

create or replace function shardman.add_foreign_key(relation text, constraint_name text, definition text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(constraint_name, 'constraint_name');
    perform shardman.need(definition, 'definition');
    -- For the table's owner, who may submit nothing else. Of others the command says what is wrong.
    if not shardman.may_administer() then
        definition := shardman.need_reference(shardman.normal_name(relation), constraint_name, definition);
    end if;
    return shardman.submit('add_foreign_key',
        json_build_object('relation', shardman.normal_name(relation), 'constraint_name', constraint_name,
                          'definition', definition));
end
$$;
comment on function shardman.add_foreign_key(text, text, text) is
    'gives a sharded table, for its owner, a foreign key to a shared table or to one that is colocated with it: definition as ALTER TABLE has it, '
    'foreign key (country) references countries (code) on delete cascade. Rows are checked beside readers and writers; where one breaks it, it is not made';

create or replace function shardman.drop_foreign_key(relation text, constraint_name text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(constraint_name, 'constraint_name');
    if not shardman.may_administer() then
        perform shardman.need_owner(shardman.normal_name(relation));
    end if;
    return shardman.submit('drop_foreign_key', json_build_object('relation', shardman.normal_name(relation), 'constraint_name', constraint_name));
end
$$;
comment on function shardman.drop_foreign_key(text, text) is 'takes a foreign key from a sharded table, on all nodes, for the table''s owner';

create or replace function shardman.build_index(relation text, index_name text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(index_name, 'index_name');
    -- For the table's owner, who may submit nothing else.
    if not shardman.may_administer() then
        perform shardman.need_owner(shardman.normal_name(relation));
    end if;
    return shardman.submit('build_index', json_build_object('relation', shardman.normal_name(relation), 'index_name', index_name));
end
$$;
comment on function shardman.build_index(text, text) is
    'builds an index that a sharded table has but in the catalogs (CREATE INDEX ... ON ONLY) on all copies, beside readers and writers; '
    'shardman.create_index_concurrently makes the one and calls the other';

create or replace function shardman.create_replica(part_name text, dest int) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(part_name, 'part_name');
    perform shardman.need(dest::text, 'dest');
    return shardman.submit('create_replica', json_build_object('part_name', shardman.normal_name(part_name), 'dest', dest));
end
$$;
comment on function shardman.create_replica(text, int) is 'makes a further copy of a partition on worker dest';

create or replace function shardman.rm_replica(part_name text, node int) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(part_name, 'part_name');
    perform shardman.need(node::text, 'node');
    return shardman.submit('rm_replica', json_build_object('part_name', shardman.normal_name(part_name), 'node', node));
end
$$;
comment on function shardman.rm_replica(text, int) is 'drops the replica of a partition on a worker';

create or replace function shardman.switch_primary(part_name text, node int) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(part_name, 'part_name');
    perform shardman.need(node::text, 'node');
    return shardman.submit('switch_primary', json_build_object('part_name', shardman.normal_name(part_name), 'node', node));
end
$$;
comment on function shardman.switch_primary(text, int) is
    'makes the replica of a partition on a worker the primary and the primary a replica; copies nothing';

create or replace function shardman.suspend_replicas(src int, dest int, relation text default null) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(src::text, 'src');
    perform shardman.need(dest::text, 'dest');
    return shardman.submit('suspend_replicas', json_build_object('src', src, 'dest', dest, 'relation', shardman.normal_name(relation)));
end
$$;
comment on function shardman.suspend_replicas(int, int, text) is
    'commits on worker src wait no more for the replicas on worker dest, which are brought up to date later; the shardlord does it '
    'by itself when the two have not reached each other for failover_after seconds. With relation: for those of this table';

create or replace function shardman.set_replevel(relation text, replevel int) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(replevel::text, 'replevel');
    if replevel < 0 then
        raise exception 'replevel is %, it must not be negative', replevel
            using errcode = 'invalid_parameter_value', hint = 'Give the number of replicas of each partition beside its primary.';
    end if;
    return shardman.submit('set_replevel', json_build_object('relation', shardman.normal_name(relation), 'replevel', replevel));
end
$$;
comment on function shardman.set_replevel(text, int) is 'brings every partition of a table to this many replicas';

create or replace function shardman.set_sync(relation text, sync bool) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(sync::text, 'sync');
    return shardman.submit('set_sync', json_build_object('relation', shardman.normal_name(relation), 'sync', sync));
end
$$;
comment on function shardman.set_sync(text, bool) is 'whether commits wait until every replica of a table''s partitions has them';

create or replace function shardman.failover(node_id int, accept_data_loss bool default false, part_name text default null) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    return shardman.submit('failover', json_build_object('node_id', node_id, 'accept_data_loss', coalesce(accept_data_loss, false),
                                                         'part_name', shardman.normal_name(part_name)));
end
$$;
comment on function shardman.failover(int, bool, text) is
    'promotes the replicas of a dead worker''s partitions; the shardlord does it by itself after failover_after seconds; with '
    'accept_data_loss also replicas that may lack acknowledged writes, where there is nothing else. With part_name: of one '
    'partition, whose rows are not on the worker any more, though that answers';
