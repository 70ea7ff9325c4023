-- Splitting: the new data tables, and the partitioned table on which they hang until the exchange (82_split.sql).

create or replace function shardman.make_split(definition jsonb, former int, ranks int[], cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    relation constant text := definition ->> 'relation';
    split    constant text := shardman.sql_name(shardman.split_table(relation, cmd_id));
    part     text;
    k        int;
begin
    execute format('create table %s (like %s including defaults including generated including constraints) partition by hash (%s)', split,
                   shardman.sql_name(relation),
                   (select string_agg(e ->> 'part_sql', ', ' order by n) from jsonb_array_elements(definition -> 'key') with ordinality as u (e, n)));
    perform shardman.leave_to_owner(shardman.find_relation(shardman.split_table(relation, cmd_id)));
    foreach k in array ranks loop
        part := shardman.part_being_made(relation, k, former, cmd_id);
        perform shardman.make_data_table(part, relation, definition, false);
        execute format('alter table %s attach partition %s for values with (modulus %s, remainder %s)', split,
                       shardman.sql_name(shardman.data_table(part)), definition ->> 'partitions_count', k);
        perform shardman.make_awaited_partition(definition, part) where k >= former;
    end loop;
end
$$;
comment on function shardman.make_split(jsonb, int, int[], bigint) is
    'makes the new data tables of a split on this node, empty and without keys, and partitions that have new names. definition: with the new number of partitions';

create or replace function shardman.make_awaited_partition(definition jsonb, part text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- There before the exchange, which locks it: whom a node sends that has committed waits here for this node, instead of finding no such relation.
    execute format('create table %s (like %s including defaults including generated including constraints including storage including compression) '
                   'partition by list (%s)', shardman.sql_name(part), shardman.sql_name(definition ->> 'relation'), definition ->> 'partition_key');
    perform shardman.leave_to_owner(shardman.find_relation(part));
end
$$;
comment on function shardman.make_awaited_partition(jsonb, text) is
    'makes a partition with a new name, empty and in no table; the exchange puts it in its place';

create or replace function shardman.awaited_partition(data regclass) returns regclass
language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.oid from pg_class d join pg_class p on p.relnamespace = d.relnamespace and d.relname = p.relname || '_data'
     where d.oid = data and p.relkind = 'p' and not p.relispartition and not exists (select from pg_inherits i where i.inhparent = p.oid)
$$;
comment on function shardman.awaited_partition(regclass) is 'what shardman.make_awaited_partition made for a new data table, as long as it is in no table';

create or replace function shardman.make_split_indexes(definition jsonb, former int, k int, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part constant text := shardman.part_being_made(definition ->> 'relation', k, former, cmd_id);
    data constant oid := shardman.find_relation(shardman.data_table(part));
begin
    -- Who owns the table builds its indexes: see shardman.make_index.
    perform shardman.give_to(data, (select relowner from pg_class where oid = shardman.find_relation(definition ->> 'relation')));
    perform shardman.make_data_indexes(part, definition);
    perform shardman.give_to(data, shardman.our_role());
end
$$;
comment on function shardman.make_split_indexes(jsonb, int, int, bigint) is 'keys, indexes and statistics objects of a new data table';

create or replace function shardman.drop_split(relation text, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    split   constant oid := shardman.find_relation(shardman.split_table(relation, cmd_id));
    made    regclass;
    awaited regclass;
begin
    for made in select i.inhrelid::regclass from pg_inherits i where i.inhparent = split loop
        awaited := shardman.awaited_partition(made);
        if awaited is not null then
            execute format('drop table %s', awaited);
        end if;
        perform shardman.unpublish(shardman.metadata_name(made));
        execute format('drop table %s', made);
    end loop;
    if split is not null then
        execute format('drop table %s', split::regclass);
    end if;
end
$$;
comment on function shardman.drop_split(text, bigint) is 'drops what shardman.make_split has made, but for what was exchanged since';
