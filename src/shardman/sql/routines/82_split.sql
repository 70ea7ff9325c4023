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

-- The new data tables ---------------------------------------------------------------------------

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

-- The log ---------------------------------------------------------------------------------------

create or replace function shardman.make_split_log(relation text, data text, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    log  constant text := 'shardman.' || shardman.split_log(relation, cmd_id);
    cols text;
    olds text;
    news text;
begin
    -- Base types: a domain may forbid the nulls of a truncation's row.
    select string_agg(format('%I::%s as shardman_key_%s', name, type, n), ', ' order by n),
           string_agg(format('old.%I', name), ', ' order by n), string_agg(format('new.%I', name), ', ' order by n)
      into cols, olds, news from shardman.conversion_key(data) with ordinality as k (name, type, equals, n);
    execute format('create table %s as select null::oid as shardman_rel, %s from %s with no data', log, cols, shardman.sql_name(data));
    execute format('comment on table %s is %L', log,
        format('keys written while command %s splits or merges partitions; a row of nulls: the table was truncated', cmd_id));
    execute format($f$
        create function %1$s() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $b$
        begin
            if tg_op = 'TRUNCATE' then
                insert into %1$s (shardman_rel) values (tg_relid);
            end if;
            if tg_op in ('DELETE', 'UPDATE') then
                insert into %1$s values (tg_relid, %2$s);
            end if;
            if tg_op = 'INSERT' or tg_op = 'UPDATE' and row(%2$s) is distinct from row(%3$s) then
                insert into %1$s values (tg_relid, %3$s);
            end if;
            return null;
        end
        $b$ $f$, log, olds, news);
end
$$;
comment on function shardman.make_split_log(text, text, bigint) is
    'makes the log of a split on this node and its trigger function; data: one of the old data tables, which all have the same key';

create or replace function shardman.start_split_log(relation text, data text, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab constant text := shardman.sql_name(data);
    log constant text := shardman.split_log(relation, cmd_id);
begin
    -- Last in the order of names: what other triggers change is written by then. Always: also for what a channel brings.
    execute format('create trigger "~shardman_%s_row" after insert or update or delete on %s for each row execute function shardman.%s()', log, tab, log);
    execute format('create trigger "~shardman_%s_all" after truncate on %s for each statement execute function shardman.%s()', log, tab, log);
    execute format('alter table %s enable always trigger "~shardman_%s_row", enable always trigger "~shardman_%s_all"', tab, log, log);
end
$$;
comment on function shardman.start_split_log(text, text, bigint) is
    'from the commit of this on every write to an old data table is in the log; needs a SHARE ROW EXCLUSIVE lock on it';

create or replace function shardman.split_logged(relation text, cmd_id bigint) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select distinct shardman.metadata_name(t.tgrelid)
      from pg_trigger t join pg_proc p on p.oid = t.tgfoid
     where p.proname = shardman.split_log(relation, cmd_id) and p.pronamespace = 'shardman'::regnamespace
$$;
comment on function shardman.split_logged(text, bigint) is 'the tables on this node whose writes a split logs, whatever they are called by now';

create or replace function shardman.stop_split_log(relation text, data text, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('drop trigger if exists "~shardman_%s_row" on %s', shardman.split_log(relation, cmd_id), shardman.sql_name(data));
    execute format('drop trigger if exists "~shardman_%s_all" on %s', shardman.split_log(relation, cmd_id), shardman.sql_name(data));
end
$$;
comment on function shardman.stop_split_log(text, text, bigint) is 'takes the log off one data table; needs an ACCESS EXCLUSIVE lock on it';

create or replace function shardman.drop_split_log(relation text, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('drop function if exists shardman.%I()', shardman.split_log(relation, cmd_id));
    execute format('drop table if exists shardman.%I', shardman.split_log(relation, cmd_id));
end
$$;
comment on function shardman.drop_split_log(text, bigint) is 'drops the log of a split, which no table has any more';

-- Rows ------------------------------------------------------------------------------------------

create or replace function shardman.split_copy(relation text, old text, cmd_id bigint) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    split constant text := shardman.split_table(relation, cmd_id);
    n     bigint;
begin
    perform shardman.need_trusted_shadow(split);
    execute format('insert into %s (%s) select %s from only %s as t', shardman.sql_name(split), shardman.plain_columns(old, null),
                   shardman.plain_columns(old, 't'), shardman.sql_name(old));
    get diagnostics n = row_count;
    return n;
end
$$;
comment on function shardman.split_copy(text, text, bigint) is 'copies the rows of an old data table to the new ones; returns how many';

create or replace function shardman.split_truncated(relation text, cmd_id bigint) returns bool
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    cut bool;
begin
    execute format('select exists (select from shardman.%I as l where l.shardman_key_1 is null)', shardman.split_log(relation, cmd_id)) into cut;
    return cut;
end
$$;
comment on function shardman.split_truncated(text, bigint) is 'whether an old data table on this node was truncated since its rows were copied';

create or replace function shardman.restart_split(relation text, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('delete from shardman.%I where shardman_key_1 is null', shardman.split_log(relation, cmd_id));
    execute format('truncate %s', shardman.sql_name(shardman.split_table(relation, cmd_id)));
end
$$;
comment on function shardman.restart_split(text, bigint) is
    'after a truncation: empties the new data tables, so that all is copied anew. Keys in the log may stay, for bringing one up to date twice does no harm';

create or replace function shardman.replay_split(relation text, former int, partitions_count int, cmd_id bigint) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp
set jit = off set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $$
declare
    log     constant text := 'shardman.' || shardman.split_log(relation, cmd_id);
    split   constant text := shardman.split_table(relation, cmd_id);
    asked   text;
    cut     bool;
    logged  oid[];
    keys    text;
    at_made text;
    at_old  text;
    item    record;
    entries bigint;
begin
    execute format('select array_agg(distinct l.shardman_rel), bool_or(l.shardman_key_1 is null) from %s as l', log) into logged, cut;
    if logged is null then
        return 0;
    elsif cut then
        raise exception '% was truncated while its partitions are split or merged', relation using errcode = 'SHM16', hint = 'Its rows are copied anew.';
    end if;
    perform shardman.need_trusted_shadow(split);
    select string_agg(format('l.shardman_key_%s', n), ', ' order by n), string_agg(format('s.%I %s l.shardman_key_%s', name, equals, n), ' and ' order by n),
           string_agg(format('t.%I %s l.shardman_key_%s', name, equals, n), ' and ' order by n)
      into keys, at_made, at_old
      from shardman.conversion_key(shardman.metadata_name(logged[1])) with ordinality as k (name, type, equals, n);
    asked := format('(select distinct %s from %s as l where l.shardman_rel = ', keys, log);
    -- All that were in the way go first: a row may have come from one partition to another.
    for item in select g.made, shardman.find_relation(g.old) as old from shardman.split_groups(relation, former, partitions_count, cmd_id) g
                 where shardman.find_relation(g.old) = any (logged) loop
        execute format('delete from only %s as s using %s %s) as l where %s', shardman.sql_name(item.made), asked, item.old, at_made);
    end loop;
    for item in select o.oid, shardman.metadata_name(o.oid) as name from unnest(logged) as o (oid) loop
        execute format('insert into %s (%s) select %s from only %s as t join %s %s) as l on %s', shardman.sql_name(split),
                       shardman.plain_columns(item.name, null), shardman.plain_columns(item.name, 't'), shardman.sql_name(item.name),
                       asked, item.oid, at_old);
    end loop;
    execute format('delete from %s', log);
    get diagnostics entries = row_count;
    return entries;
end
$$;
comment on function shardman.replay_split(text, int, int, bigint) is
    'brings the rows whose keys are in the log up to date in the new data tables, and returns how many entries there were; in a repeatable-read '
    'transaction, or while nobody can write (shardman.hold_for_exchange). Raises SHM16 when an old one was truncated';

create or replace function shardman.unlogged_sum(relation text, tables text[], cmd_id bigint, out rows bigint, out hash numeric)
language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    logged text;
    tab    text;
    more   bigint;
    sum_   numeric;
begin
    rows := 0;
    hash := 0;
    foreach tab in array tables loop
        select string_agg(format('t.%I %s l.shardman_key_%s', name, equals, n), ' and ' order by n) into logged
          from shardman.conversion_key(tab) with ordinality as k (name, type, equals, n);
        execute format('select count(*), coalesce(sum(%s), 0) from only %s as t where not exists (select from shardman.%I as l where %s)',
                       shardman.row_hash(tab, 't'), shardman.sql_name(tab), shardman.split_log(relation, cmd_id), logged) into more, sum_;
        rows := rows + more;
        hash := hash + sum_;
    end loop;
end
$$;
comment on function shardman.unlogged_sum(text, text[], bigint) is
    'number and order-independent hash of the rows of some data tables whose keys are not in the log of a split';

create or replace function shardman.split_content(relation text, olds text[], mades text[], cmd_id bigint, out rows bigint, out found bigint, out same bool)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select o.rows, m.rows, (o.rows, o.hash) = (m.rows, m.hash) from shardman.unlogged_sum(relation, olds, cmd_id) as o,
           shardman.unlogged_sum(relation, mades, cmd_id) as m
$$;
comment on function shardman.split_content(text, text[], text[], bigint) is
    'compares old and new data tables under one snapshot, but for what is in the log; rows: of the old ones, found: of the new ones';

-- The exchange ----------------------------------------------------------------------------------

create or replace function shardman.hold_for_exchange(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    l record;
begin
    for l in select s.part, s.leaf, s.kind from shardman.leaves(shardman.find_relation(relation)) s order by s.part loop
        if l.kind = 'data' then
            execute format('lock table only %s in access exclusive mode', l.part::regclass);
            execute format('lock table only %s in exclusive mode', l.leaf::regclass);
        else
            -- By its partition alone can a route be locked.
            execute format('lock table %s in access exclusive mode', l.part::regclass);
        end if;
    end loop;
end
$$;
comment on function shardman.hold_for_exchange(text) is
    'for who has locked the table alone: locks its partitions, and data tables so that they can be read: the last rows come to the new ones in another transaction';

create or replace function shardman.take_partitions_off(relation text, former int, partitions_count int, gone text[], cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part  text;
    child oid;
    data  text;
begin
    for j in 0 .. former - 1 loop
        part := shardman.suffixed(relation, '_' || j);
        child := shardman.attached_to(part);
        if child = shardman.find_relation(shardman.route_table(part)) then
            perform shardman.drop_route(part);
        elsif child is not null then
            execute format('alter table %s detach partition %s', shardman.sql_name(part), child::regclass);
        end if;
        execute format('alter table %s detach partition %s', shardman.sql_name(relation), shardman.sql_name(part));
        data := shardman.data_table(part);
        if data = any (gone) then
            perform shardman.unpublish(data);
            execute format('alter table %s rename to %I', shardman.sql_name(data), shardman.aside_name(part, cmd_id));
            perform shardman.leave_to_owner(shardman.find_relation(shardman.relation_text((shardman.relation_parts(part))[1],
                                                                                         shardman.aside_name(part, cmd_id))));
        end if;
        if j >= partitions_count then
            execute format('drop table %s', shardman.sql_name(part));
        end if;
    end loop;
end
$$;
comment on function shardman.take_partitions_off(text, int, int, text[], bigint) is
    'in the exchange: takes all old partitions off the table; those that stay by name are empty then. gone: the old data tables, which are renamed';

create or replace function shardman.bring_in(definition jsonb, k int, made text, primary_here bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part  constant text := shardman.suffixed(definition ->> 'relation', '_' || k);
    data  constant oid := shardman.find_relation(made);
    pub   text;
begin
    for pub in select p.pubname from pg_publication p join pg_publication_rel r on r.prpubid = p.oid where r.prrelid = data loop
        -- It is there already, with a filter that lets nothing through.
        execute format('alter publication %I drop table only %s', pub, data::regclass);
        execute format('alter publication %I add table only %s', pub, data::regclass);
    end loop;
    if made <> shardman.data_table(part) then
        execute format('alter table %s rename to %I', data::regclass, (shardman.relation_parts(shardman.data_table(part)))[2]);
    end if;
    if primary_here then
        perform shardman.attach_data(part);
        perform shardman.follow_parent(data, shardman.find_relation(definition ->> 'relation'));
    else
        perform shardman.make_read_only(shardman.data_table(part));
    end if;
end
$$;
comment on function shardman.bring_in(jsonb, int, text, bool) is
    'in the exchange: a new data table becomes the primary''s, in its partition, or a replica''s; it takes its name, and channels let its rows through';

create or replace function shardman.split_swap(definition jsonb, former int, owners int[], cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    relation constant text := definition ->> 'relation';
    count_   constant int := (definition ->> 'partitions_count')::int;
    parent   constant oid := shardman.find_relation(relation);
    split    constant text := shardman.split_table(relation, cmd_id);
    here     constant jsonb := (select jsonb_object_agg(g.k, g.made) from shardman.split_groups(relation, former, count_, cmd_id) g);
    gone     constant text[] := array(select distinct g.old from shardman.split_groups(relation, former, count_, cmd_id) g);
    owner_   int;
    part     text;
begin
    perform set_config('shardman.exchanging', 'on', true);
    -- Events of what was replayed would be in the way of what follows.
    set constraints all immediate;
    perform shardman.drop_keys(parent);
    perform shardman.take_partitions_off(relation, former, count_, gone, cmd_id);
    for k in 0 .. count_ - 1 loop
        part := shardman.suffixed(relation, '_' || k);
        owner_ := owners[k + 1];
        if shardman.find_relation(part) is null then
            perform shardman.make_partition(definition, relation, part, count_, k);
        else
            execute format('alter table %s attach partition %s for values with (modulus %s, remainder %s)', parent::regclass,
                           shardman.sql_name(part), count_, k);
            perform shardman.follow_parent(shardman.find_relation(part), parent) where k >= former;
        end if;
        if here ? k::text then
            execute format('alter table %s detach partition %s', shardman.sql_name(split), shardman.sql_name(here ->> k::text));
            perform shardman.bring_in(definition, k, here ->> k::text, owner_ = shardman.my_id());
        end if;
        if owner_ <> shardman.my_id() then
            -- Over a server of its own: a session may have a connection to that node whose snapshot is older than the new tables' rows.
            perform shardman.make_attached_route(part, shardman.node_server(owner_) || '_c' || cmd_id);
        end if;
    end loop;
    perform shardman.mend_keys(definition, parent);
end
$$;
comment on function shardman.split_swap(jsonb, int, int[], bigint) is
    'in the cut-over, on every node: the table gets its new partitions in place of the old ones. definition: with the new number; owners: of the '
    'primaries of the new partitions, in the order of their numbers';

create or replace function shardman.split_refer(definition jsonb, owners int[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    for k in 0 .. cardinality(owners) - 1 loop
        if owners[k + 1] = shardman.my_id() then
            perform shardman.add_references(shardman.suffixed(definition ->> 'relation', '_' || k), definition),
                    shardman.attached_row_triggers(shardman.suffixed(definition ->> 'relation', '_' || k), definition);
        end if;
    end loop;
end
$$;
comment on function shardman.split_refer(jsonb, int[]) is
    'in the cut-over, when all tables of the group have their new partitions: the new data tables get their foreign keys, which lead to new ones, and triggers';

create or replace function shardman.settle_names(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    def constant jsonb := (select t.definition from shardman.tables t where t.relation = settle_names.relation);
    c   record;
begin
    for c in
        with here as (
            select d.oid, d.relnamespace, shardman.table_number(d.oid) as k
              from shardman.partitions p join pg_class d on d.oid = shardman.find_relation(shardman.data_table(p.part_name))
             where p.relation = settle_names.relation and p.owner = shardman.my_id()
        )
        select 'index' as kind, x.oid::regclass::text as name, shardman.numbered_name(e ->> 'name', h.k) as wanted
          from here h join pg_index i on i.indrelid = h.oid join pg_class x on x.oid = i.indexrelid
          join jsonb_array_elements((def -> 'keys') || (def -> 'indexes') || coalesce(def -> 'shared_indexes', '[]')) e
            on shardman.is_other_name(x.relname, e ->> 'name', h.k)
         where not exists (select from pg_class o where o.relnamespace = h.relnamespace and o.relname = shardman.numbered_name(e ->> 'name', h.k))
        union all
        select 'statistics', format('%I.%I', n.nspname, s.stxname), shardman.numbered_name(e ->> 'name', h.k)
          from here h join pg_statistic_ext s on s.stxrelid = h.oid join pg_namespace n on n.oid = s.stxnamespace
          join jsonb_array_elements(def -> 'statistics') e on shardman.is_other_name(s.stxname, e ->> 'name', h.k)
         where not exists (select from pg_statistic_ext o
                            where o.stxnamespace = s.stxnamespace and o.stxname = shardman.numbered_name(e ->> 'name', h.k))
    loop
        execute format('alter %s %s rename to %I', c.kind, c.name, c.wanted);
    end loop;
end
$$;
comment on function shardman.settle_names(text) is
    'gives indexes and statistics objects of data tables here the names that they could not have while the old tables had them';
