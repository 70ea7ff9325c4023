-- How a sharded table becomes a plain one of a node again, while it is used. The sequence is in docs/commands/unshard_table.md;
-- names with _c<n> belong to command n alone.
--
-- All partitions are on the node by then. Writes to its data tables are logged by key (start_unshard_log). Their rows are copied
-- under one snapshot into the shadow, a plain table under another name (unshard_chunk). Then, again and again, the keys in the log are
-- brought up to date in the shadow (replay_c<n>), at last under locks on all of it, and the names are exchanged (unshard_swap).

create or replace function shardman.unshard_name(cmd_id bigint, what text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select format('shardman_c%s_%s', cmd_id, what)
$$;
comment on function shardman.unshard_name(bigint, text) is 'what unsharding calls something on its way';

create or replace function shardman.unshard_parts(relation text) returns table (k int, part text, data text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.part_number(p.part_name), p.part_name, shardman.data_table(p.part_name)
      from shardman.partitions p where p.relation = unshard_parts.relation and p.prv is null order by 1
$$;
comment on function shardman.unshard_parts(text) is 'the partitions of a table, with their data tables, in the order of their numbers';

create or replace function shardman.unshard_obstacles(relation text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- What shardman.dependents finds, and what else would go with the table: what uses its row type, policies of others.
    with rel as (select shardman.find_relation(relation) as oid)
    select coalesce(array_agg(distinct what order by what), '{}') from (
        select unnest(shardman.dependents(relation))
        union all
        select pg_describe_object(d.classid, d.objid, d.objsubid)
          from rel join pg_type t on t.typrelid = rel.oid
          join pg_depend d on d.refclassid = 'pg_type'::regclass and d.refobjid in (t.oid, t.typarray) and d.deptype = 'n'
        union all
        select pg_describe_object(d.classid, d.objid, 0)
          from rel join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = rel.oid and d.classid = 'pg_policy'::regclass and d.deptype = 'n'
          join pg_policy p on p.oid = d.objid and p.polrelid <> rel.oid
        union all
        select pg_describe_object('pg_trigger'::regclass, t.oid, 0) from rel join pg_trigger t on t.tgrelid = rel.oid and not t.tgisinternal
        union all
        select pg_describe_object('pg_publication_rel'::regclass, p.oid, 0) from rel join pg_publication_rel p on p.prrelid = rel.oid
    ) as found_ (what)
$$;
comment on function shardman.unshard_obstacles(text) is
    'what on this node hangs on a sharded table, and would not be there with the plain one: views, functions, policies, triggers, publications';

create or replace function shardman.unshard_state(relation text) returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    with rel as (select shardman.find_relation(relation) as oid)
    select md5(string_agg(v.version, ',' order by v.version)) from (
        select 'c' || c.xmin || coalesce(d.description, '') from rel join pg_class c on c.oid = rel.oid
          left join pg_description d on d.objoid = rel.oid and d.classoid = 'pg_class'::regclass and d.objsubid = 0
        union all select 'a' || a.xmin || coalesce(col_description(rel.oid, a.attnum), '') from rel join pg_attribute a on a.attrelid = rel.oid
        union all select 'f' || f.xmin from rel join pg_attrdef f on f.adrelid = rel.oid
        union all select 'o' || o.xmin from rel join pg_constraint o on o.conrelid = rel.oid
        union all select 'i' || i.xmin || ' ' || c.xmin from rel join pg_index i on i.indrelid = rel.oid join pg_class c on c.oid = i.indexrelid
        union all select 's' || s.xmin from rel join pg_statistic_ext s on s.stxrelid = rel.oid
        union all select 't' || t.xmin from rel join pg_trigger t on t.tgrelid = rel.oid
        union all select 'r' || (shardman.known_row_triggers(relation) ->> 'change')
        union all select 'p' || p.xmin from rel join pg_policy p on p.polrelid = rel.oid
        union all select 'd' || what from unnest(shardman.unshard_obstacles(relation)) as what) as v (version)
$$;
comment on function shardman.unshard_state(text) is
    'differs when anything about a sharded table, or what hangs on it, was changed in between; moves of its partitions change nothing of it';

create or replace function shardman.unshard_numbers(definition jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select string_agg(s ->> 'name', ', ')
      from jsonb_array_elements(definition -> 'sequences') s where shardman.next_behind_all(s) > shardman.type_max((s ->> 'type')::regtype)
$$;
comment on function shardman.unshard_numbers(jsonb) is 'sequences that have no numbers above those of all nodes; null where all have';

create or replace function shardman.next_behind_all(spec jsonb) returns numeric
language sql stable set search_path = pg_catalog, pg_temp as $$
    select (spec ->> 'base')::numeric + ((select max(n.id) from shardman.nodes n) + 1) * (spec ->> 'width')::numeric + 1
$$;
comment on function shardman.next_behind_all(jsonb) is
    'the first number above the ranges of all nodes that there are or were: whoever has taken one beforehand, on any node, is alone with it';
