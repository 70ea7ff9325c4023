-- How a sharded table gets more or fewer partitions while it is used. The sequence is in docs/commands/set_partitions_count.md;
-- names with _c<n> belong to command n alone, and what is between is of one table: those of a colocated group change together.
--
-- Each node that has copies, of primaries or of replicas, splits its own: rows never leave their node, for those of partition k of n
-- belong to k, k + n, k + 2n, … of m * n, and back. The new data tables hang on a partitioned table of their own (the split), which
-- sends each row to its place. Writes to the old ones leave their keys in a log (start_split_log), rows are copied (split_copy), and
-- keys in the log are brought up to date (replay_split) again and again, at last while nobody on any node can use the table
-- (hold_for_exchange): in a transaction that is committed before any node can commit the exchange, for whom a node that has sends to
-- one that has not yet waits there with a picture of this moment. Then every node exchanges all partitions (split_swap, split_refer) in a
-- transaction that is prepared.

create or replace function shardman.split_mark(relation text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select substr(md5(relation), 1, 12)
$$;
comment on function shardman.split_mark(text) is 'a short word of its own for each table of a group, for names of what one command makes for each';

create or replace function shardman.split_log(relation text, cmd_id bigint) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select format('log_%s_c%s', shardman.split_mark(relation), cmd_id)
$$;
comment on function shardman.split_log(text, bigint) is 'the log of writes to the old data tables of a table, in the schema shardman, and its trigger function';

create or replace function shardman.split_table(relation text, cmd_id bigint) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select shardman.relation_text((shardman.relation_parts(relation))[1], format('shardman_c%s_%s_all', cmd_id, shardman.split_mark(relation)))
$$;
comment on function shardman.split_table(text, bigint) is 'the partitioned table on which the new data tables of a split hang until they are exchanged';

create or replace function shardman.part_being_made(relation text, k int, former int, cmd_id bigint) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select case when k >= former then shardman.suffixed(relation, '_' || k)
                else shardman.relation_text((shardman.relation_parts(relation))[1], format('shardman_c%s_%s_%s', cmd_id, shardman.split_mark(relation), k)) end
$$;
comment on function shardman.part_being_made(text, int, int, bigint) is
    'what new partition k is called before the exchange: as it will be where no old one has that name';

create or replace function shardman.table_number(data oid) returns int
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.part_number(regexp_replace(c.relname, '_data$', '')) from pg_class c where c.oid = data
$$;
comment on function shardman.table_number(oid) is 'k of a data table acc_k_data';

create or replace function shardman.split_groups(relation text, former int, partitions_count int, cmd_id bigint)
returns table (grp int, k int, old text, made text) language sql stable set search_path = pg_catalog, pg_temp as $$
    select s.k % least(former, partitions_count), s.k, shardman.data_table(shardman.suffixed(relation, '_' || j)), shardman.metadata_name(s.oid)
      from (select i.inhrelid as oid, shardman.table_number(i.inhrelid) as k from pg_inherits i
             where i.inhparent = shardman.find_relation(shardman.split_table(relation, cmd_id))) as s
      join generate_series(0, former - 1) as j on j % least(former, partitions_count) = s.k % least(former, partitions_count)
     order by 2, j
$$;
comment on function shardman.split_groups(text, int, int, bigint) is
    'the new data tables on this node, each with the old ones that its rows come from; grp: the number that those of a group have in common';

create or replace function shardman.split_obstacles(relation text, former int, partitions_count int) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with names as (
        select k, v.name
          from generate_series(0, partitions_count - 1) as k, lateral (select shardman.suffixed(relation, '_' || k) as part) as p,
               lateral (values (part), (shardman.data_table(part)), (shardman.route_table(part))) as v (name)
    ), needed as (
        select shardman.metadata_name(l.leaf) as name, l.leaf as oid from shardman.leaves(shardman.find_relation(relation)) l where l.leaf is not null
        union all
        select shardman.metadata_name(l.part), l.part from shardman.leaves(shardman.find_relation(relation)) l
         where shardman.part_number((select c.relname from pg_class c where c.oid = l.part)) >= partitions_count
    )
    select coalesce(jsonb_agg(o), '[]') from (
        (select shardman.obstacle(format('the name %s is longer than the 63 bytes that PostgreSQL keeps', n.name), 'Choose fewer partitions')
           from names n where octet_length((shardman.relation_parts(n.name))[2]) > 63 order by n.k limit 1)
        union all
        (select shardman.obstacle(format('%s is there already, and a partition needs the name', n.name), 'Rename it or drop it')
           from names n where n.k >= former and octet_length((shardman.relation_parts(n.name))[2]) <= 63
            and shardman.find_relation(n.name) is not null order by n.k limit 1)
        union all
        (select distinct shardman.obstacle(format('%s is made of %s, which is exchanged or goes', pg_describe_object(d.classid, d.objid, 0), n.name),
                                  'Drop it, and make it again afterwards, of the table or of a partition')
           from needed n join pg_depend x on x.refclassid = 'pg_class'::regclass and x.refobjid = n.oid and x.deptype = 'n'
          cross join lateral (select case when x.classid = 'pg_rewrite'::regclass then 'pg_class'::regclass::oid else x.classid end,
                                     case when x.classid = 'pg_rewrite'::regclass then (select w.ev_class from pg_rewrite w where w.oid = x.objid)
                                          else x.objid end) as d (classid, objid)
          where x.classid in ('pg_rewrite'::regclass, 'pg_proc'::regclass))
        union all
        (select distinct shardman.obstacle(format('%s groups by the key %s, which is taken from the table for the exchange',
                                         (select w.ev_class::regclass from pg_rewrite w where w.oid = x.objid), o.conname),
                                  'Drop it, and make it again afterwards')
           from pg_constraint o join pg_depend x on x.refclassid = 'pg_constraint'::regclass and x.refobjid = o.oid
          where o.conrelid = shardman.find_relation(relation) and o.contype in ('p', 'u') and x.classid = 'pg_rewrite'::regclass)
        union all
        -- What is made as a partition has it as a valid one, and the planner would leave out rows that break it.
        (select shardman.obstacle(format('the constraint %s has never been validated', l.name), format('ALTER TABLE %s VALIDATE CONSTRAINT %I', relation, l.name))
           from shardman.late_checks(shardman.find_relation(relation)) l order by l.name limit 1)
        union all
        (select shardman.obstacle('its server prepares no transactions (max_prepared_transactions is 0)', 'Set it, and restart the server')
          where current_setting('max_prepared_transactions')::int = 0)) as t (o)
$$;
comment on function shardman.split_obstacles(text, int, int) is
    'what on this node keeps a sharded table from getting another number of partitions; [] when nothing does';
