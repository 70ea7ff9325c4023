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

-- The shadow ------------------------------------------------------------------------------------

create or replace function shardman.need_trusted_plain(shadow text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('lock table %s in row exclusive mode', shardman.sql_name(shadow));
    perform shardman.need_trusted(array[shardman.find_relation(shadow)]);
end
$$;
comment on function shardman.need_trusted_plain(text) is
    'raises SHM09 where rows must not be written into the plain table; what it found stays true until the transaction ends';

create or replace function shardman.make_plain(relation text, shadow text, definition jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab  constant text := shardman.sql_name(shadow);
    item text;
begin
    if shardman.find_relation(shadow) is not null then
        return;
    end if;
    perform shardman.need_trusted_types(definition);
    execute format('create table %s (like %s including all excluding indexes excluding statistics excluding identity)%s%s', tab,
                   shardman.sql_name(relation), ' using ' || quote_ident(nullif(definition -> 'storage' ->> 'access_method', 'heap')),
                   shardman.storage_sql(definition));
    perform shardman.drop_late_checks(shardman.find_relation(shadow), shardman.find_relation(relation));
    for item in
        select format('alter table %s add constraint %I %s no inherit', tab, c ->> 'name', c ->> 'sql')
          from jsonb_array_elements(definition -> 'checks') c where (c ->> 'no_inherit')::bool and not shardman.is_late(c)
        union all
        select format('comment on constraint %I on %s is %L', c ->> 'name', tab, c ->> 'comment')
          from jsonb_array_elements(definition -> 'checks') c where (c ->> 'no_inherit')::bool and c ->> 'comment' is not null and not shardman.is_late(c)
        union all
        select shardman.column_tuning(definition, tab)
        union all
        select format('comment on table %s is %L', tab, d) from obj_description(shardman.find_relation(relation), 'pg_class') as d where d is not null
    loop
        execute item;
    end loop;
    -- Nobody else's before it has the rows, whatever the default privileges are.
    perform shardman.leave_to_owner(shardman.find_relation(shadow));
end
$$;
comment on function shardman.make_plain(text, text, jsonb) is
    'makes a plain table like a sharded one, empty, without keys and indexes, which only the cluster may use';

create or replace function shardman.plain_items(definition jsonb) returns table (i int, item jsonb)
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select u.n::int, u.e from jsonb_array_elements((definition -> 'keys') || (definition -> 'indexes') || coalesce(definition -> 'shared_indexes', '[]'))
           with ordinality as u (e, n)
$$;
comment on function shardman.plain_items(jsonb) is 'the keys and indexes of a definition, numbered';

create or replace function shardman.make_plain_indexes(shadow text, definition jsonb, cmd_id bigint, owner_ oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab    constant oid := shardman.find_relation(shadow);
    schema constant text := (shardman.relation_parts(shadow))[1];
    here   record;
    name   text;
    line   text;
begin
    -- Who owns the table builds its indexes: code of the user's must not run as the cluster's role before it was looked at.
    perform shardman.give_to(tab, owner_);
    for here in select x.i, x.item from shardman.plain_items(definition) x loop
        name := shardman.unshard_name(cmd_id, 'ix' || here.i);
        if shardman.find_relation(shardman.relation_text(schema, name)) is not null then
            continue;
        end if;
        for line in
            select format('create %sindex %I on %s %s', case when (here.item ->> 'unique')::bool then 'unique ' end, name, tab::regclass, here.item ->> 'sql')
             where here.item ? 'unique'
            union all
            select format('alter table %s add constraint %I %s', tab::regclass, name, here.item ->> 'sql') where not here.item ? 'unique'
            union all
            select format('alter index %I.%I set (', schema, name) || string_agg(o, ', ') || ')'
              from jsonb_array_elements_text(nullif(here.item -> 'options', 'null')) o where not here.item ? 'unique'
            having count(*) > 0
            union all
            select format('comment on constraint %I on %s is %L', name, tab::regclass, coalesce(here.item ->> 'parent_comment', here.item ->> 'comment'))
             where not here.item ? 'unique' and coalesce(here.item ->> 'parent_comment', here.item ->> 'comment') is not null
            union all
            select format('comment on index %I.%I is %L', schema, name, here.item ->> 'comment')
             where here.item ? 'unique' and here.item ->> 'comment' is not null
            union all
            select format('alter table %s cluster on %I', tab::regclass, name) where (here.item ->> 'clustered')::bool
            union all
            select format('alter table %s replica identity using index %I', tab::regclass, name)
             where (here.item ->> 'identity')::bool and definition -> 'replica_identity' ->> 'kind' = 'index'
        loop
            execute line;
        end loop;
    end loop;
    if definition -> 'replica_identity' ->> 'kind' = 'full' then
        execute format('alter table %s replica identity full', tab::regclass);
    end if;
    perform shardman.lay_late_checks(tab, definition);
    perform shardman.make_plain_statistics(tab, schema, x.s, shardman.unshard_name(cmd_id, 'st' || x.i))
       from jsonb_array_elements(definition -> 'statistics') with ordinality as x (s, i);
    perform shardman.give_to(tab, shardman.our_role());
end
$$;
comment on function shardman.make_plain_indexes(text, jsonb, bigint, oid) is
    'keys, indexes and statistics objects of a plain table, under names of the command; safe to repeat. owner_: who is to own it';

create or replace function shardman.make_plain_statistics(tab oid, schema text, item jsonb, name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line text;
begin
    if exists (select from pg_statistic_ext where stxrelid = tab and stxname = name) then
        return;
    end if;
    for line in
        select format('create statistics %I.%I %s on %s from %s', schema, name, '(' || (item ->> 'kinds') || ')', item ->> 'sql', tab::regclass)
        union all
        select format('alter statistics %I.%I set statistics %s', schema, name, item ->> 'target') where item ->> 'target' is not null
        union all
        select format('comment on statistics %I.%I is %L', schema, name, item ->> 'comment') where item ->> 'comment' is not null
    loop
        execute line;
    end loop;
end
$$;
comment on function shardman.make_plain_statistics(oid, text, jsonb, text) is 'a statistics object of a definition on a plain table';

-- The log ---------------------------------------------------------------------------------------

create or replace function shardman.make_unshard_log(relation text, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    first constant text := (select p.data from shardman.unshard_parts(relation) p limit 1);
    log   constant text := format('shardman.log_c%s', cmd_id);
    cols  text;
    names text;
    olds  text;
    news  text;
begin
    select string_agg(format('%I::%s as %I', name, type, name), ', '), string_agg(format('%I', name), ', '),
           string_agg(format('old.%I', name), ', '), string_agg(format('new.%I', name), ', ')
      into cols, names, olds, news from shardman.conversion_key(first);
    execute format('create table %s as select 0 as shardman_part, %s from %s with no data', log, cols, shardman.sql_name(first));
    execute format('comment on table %s is %L', log,
        format('keys of %s written while command %s makes it a plain table; a row of nulls: that partition was truncated', relation, cmd_id));
    -- As its owner: the application may not write here. The first key column is never null in a row.
    execute format($f$
        create function %1$s() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $b$
        declare
            part constant int := tg_argv[0]::int;
        begin
            if tg_op = 'TRUNCATE' then
                insert into %1$s (shardman_part) values (part);
            end if;
            if tg_op in ('DELETE', 'UPDATE') then
                insert into %1$s (shardman_part, %4$s) values (part, %2$s);
            end if;
            if tg_op = 'INSERT' or tg_op = 'UPDATE' and row(%2$s) is distinct from row(%3$s) then
                insert into %1$s (shardman_part, %4$s) values (part, %3$s);
            end if;
            return null;
        end
        $b$ $f$, log, olds, news, names);
end
$$;
comment on function shardman.make_unshard_log(text, bigint) is
    'makes the log of unsharding, shardman.log_c<cmd_id>, and the trigger function of the same name';

create or replace function shardman.start_unshard_log(data text, k int, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab constant text := shardman.sql_name(data);
    log constant text := format('log_c%s', cmd_id);
begin
    if exists (select from pg_trigger where tgrelid = shardman.find_relation(data) and tgname = format('~shardman_%s_row', log)) then
        return;
    end if;
    execute format('create trigger "~shardman_%s_row" after insert or update or delete on %s for each row execute function shardman.%1$s(%3$s)', log, tab, k);
    execute format('create trigger "~shardman_%s_all" after truncate on %s for each statement execute function shardman.%1$s(%3$s)', log, tab, k);
    -- Also for sessions with session_replication_role = replica.
    execute format('alter table %s enable always trigger "~shardman_%s_row", enable always trigger "~shardman_%2$s_all"', tab, log);
end
$$;
comment on function shardman.start_unshard_log(text, int, bigint) is
    'from the commit of this on every write to a data table is in the log; needs a SHARE ROW EXCLUSIVE lock on it';

create or replace function shardman.unshard_logged(cmd_id bigint) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select distinct shardman.metadata_name(t.tgrelid)
      from pg_trigger t join pg_proc p on p.oid = t.tgfoid
     where p.proname = 'log_c' || cmd_id and p.pronamespace = 'shardman'::regnamespace
$$;
comment on function shardman.unshard_logged(bigint) is 'the data tables whose writes are logged, whatever they are called by now';

create or replace function shardman.stop_unshard_log(data text, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab constant text := shardman.sql_name(data);
begin
    execute format('drop trigger if exists "~shardman_log_c%s_row" on %s', cmd_id, tab);
    execute format('drop trigger if exists "~shardman_log_c%s_all" on %s', cmd_id, tab);
end
$$;
comment on function shardman.stop_unshard_log(text, bigint) is 'ends the log of one data table; needs an ACCESS EXCLUSIVE lock on it';

-- Copy, catching up, proof ----------------------------------------------------------------------

create or replace function shardman.unshard_chunk(data text, shadow text, filenode oid, first_block bigint, blocks bigint) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    n    bigint;
    line text;
begin
    perform shardman.check_filenode(data, filenode);
    perform shardman.need_trusted_plain(shadow);
    line := format('insert into %s (%s) select %s from only %s as t where %s', shardman.sql_name(shadow), shardman.plain_columns(shadow, null),
                   shardman.plain_columns(shadow, 't'), shardman.sql_name(data), shardman.block_range('t', first_block, blocks));
    execute line;
    get diagnostics n = row_count;
    return n;
end
$$;
comment on function shardman.unshard_chunk(text, text, oid, bigint, bigint) is
    'copies the rows in some blocks of a data table to the plain one; for a transaction with the snapshot of the copy. Returns how many';

create or replace function shardman.make_unshard_replay(relation text, shadow text, definition jsonb, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data    constant text := (select p.data from shardman.unshard_parts(relation) p limit 1);
    log     constant text := format('shardman.log_c%s', cmd_id);
    parent  constant oid := shardman.find_relation(relation);
    insert_ text;
    first   text;
    keys    text;
    at_log  text;
    at_tab  text;
begin
    select min(format('%I', name)) filter (where n = 1),
           string_agg(format('%I as shardman_key_%s', name, n), ', ' order by n),
           string_agg(format('s.%I %s l.shardman_key_%s', name, equals, n), ' and ' order by n),
           string_agg(format('t.%I %s l.shardman_key_%s', name, equals, n), ' and ' order by n)
      into first, keys, at_log, at_tab
      from shardman.conversion_key(data) with ordinality as k (name, type, equals, n);
    insert_ := format('insert into %s (%s) select %s from only {} as t join (select distinct %s from %s where %s is not null and shardman_part = $1) as l on %s',
                      shardman.sql_name(shadow), shardman.plain_columns(shadow, null), shardman.plain_columns(shadow, 't'), keys, log, first, at_tab);
    execute format($f$
        create or replace function shardman.replay_c%1$s() returns bigint language plpgsql
        set search_path = pg_catalog, pg_temp set jit = off set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $b$
        #variable_conflict use_column
        declare
            entries   bigint;
            part_     record;
            statement text;
        begin
            if not exists (select from %2$s) then
                return 0;
            end if;
            perform shardman.need_trusted_plain(%3$L);
            -- All rows that a truncated partition has now were written after that, so their keys are in the log.
            for part_ in select distinct l.shardman_part as k from %2$s l where l.%4$s is null loop
                statement := pg_catalog.replace(%5$L, '{}', part_.k::text);
                execute statement;
            end loop;
            delete from %6$s as s using (select distinct %7$s from %2$s where %4$s is not null) as l where %8$s;
            for part_ in
                select p.k, p.data from shardman.unshard_parts(%9$L) p
                 where p.k in (select l.shardman_part from %2$s l where l.%4$s is not null)
            loop
                statement := pg_catalog.replace(%10$L, '{}', shardman.sql_name(part_.data));
                execute statement using part_.k;
            end loop;
            delete from %2$s;
            get diagnostics entries = row_count;
            return entries;
        end
        $b$ $f$, cmd_id, log, shadow, first,
        format('delete from %s where %s', shardman.sql_name(shadow),
               replace(shardman.partition_check(definition, parent, -1), definition ->> 'partitions_count' || ', -1, ', definition ->> 'partitions_count' || ', {}, ')),
        shardman.sql_name(shadow), keys, at_log, relation, insert_);
    execute format('comment on function shardman.replay_c%s() is %L', cmd_id,
        'brings the rows whose keys are in the log up to date in the plain table and returns how many entries there were; '
        'in a repeatable-read transaction, or while nobody can write to the sharded one');
end
$$;
comment on function shardman.make_unshard_replay(text, text, jsonb, bigint) is 'makes shardman.replay_c<cmd_id>()';

create or replace function shardman.unshard_unlogged(from_sql text, key_of text, cmd_id bigint, out rows bigint, out hash numeric)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    differs text;
    line    text;
begin
    if to_regclass(format('shardman.log_c%s', cmd_id)) is not null then
        select format('not exists (select from shardman.log_c%s as l where %s)', cmd_id,
                      string_agg(format('t.%I %s l.%I', name, equals, name), ' and '))
          into differs from shardman.conversion_key(key_of);
    end if;
    line := format('select count(*), coalesce(sum(%s), 0) from %s and %s', shardman.row_hash(key_of, 't'), from_sql, coalesce(differs, 'true'));
    execute line into rows, hash;
end
$$;
comment on function shardman.unshard_unlogged(text, text, bigint) is
    'number and order-independent hash of those rows t whose keys are not in the log; key_of: a data table';

create or replace function shardman.unshard_content(
    content_of text, key_of text, cmd_id bigint, filenode oid, first_block bigint, blocks bigint, out rows bigint, out hash numeric)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    first constant text := (select name from shardman.conversion_key(key_of) limit 1);
    line  text;
    found_ bool;
begin
    perform shardman.check_filenode(content_of, filenode);
    line := format('select exists (select from shardman.log_c%s where %I is null)', cmd_id, first);
    execute line into found_;
    if found_ then
        raise exception 'a partition was truncated' using errcode = 'SHM03';
    end if;
    select c.rows, c.hash into rows, hash
      from shardman.unshard_unlogged(format('only %s as t where %s', shardman.sql_name(content_of), shardman.block_range('t', first_block, blocks)),
                                     key_of, cmd_id) as c;
end
$$;
comment on function shardman.unshard_content(text, text, bigint, oid, bigint, bigint) is
    'content of some blocks of a data table or of the plain one, but for what is in the log; key_of: a data table. Raises SHM03 where they '
    'mean something else by now';

create or replace function shardman.unshard_at_once(relation text, shadow text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    here  record;
    there record;
    line  text;
    like_ constant text := (select p.data from shardman.unshard_parts(relation) p limit 1);
begin
    perform shardman.need_trusted_plain(shadow);
    line := format('insert into %s (%s) select %s from %s as t', shardman.sql_name(shadow), shardman.plain_columns(shadow, null),
                   shardman.plain_columns(shadow, 't'), shardman.sql_name(relation));
    execute line;
    select * into here from shardman.unshard_unlogged(format('%s as t where true', shardman.sql_name(relation)), like_, null);
    select * into there from shardman.unshard_unlogged(format('only %s as t where true', shardman.sql_name(shadow)), like_, null);
    if here is distinct from there then
        raise exception '% has % rows and the plain table %, or their contents differ', relation, here.rows, there.rows
            using errcode = 'SHM05', hint = 'Nothing was changed; report this with the server''s log.';
    end if;
    return here.rows;
end
$$;
comment on function shardman.unshard_at_once(text, text) is
    'copies a sharded table to the plain one and compares both, while nobody can write; returns the number of rows';

-- The cut-over ----------------------------------------------------------------------------------

create or replace function shardman.plain_sequence(spec jsonb, tab oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    seq  constant text := shardman.sql_name(spec ->> 'name');
    next_ constant numeric := shardman.next_behind_all(spec);
    lines text[];
    line  text;
begin
    lines := array[
        -- This waits for whoever takes a number just now, and keeps others from it.
        format('alter sequence %s owned by none', seq),
        format('alter sequence %s minvalue 1 maxvalue %s start %s restart %3$s', seq, shardman.type_max((spec ->> 'type')::regtype), next_),
        format('alter sequence %s owned by %s.%I', seq, tab::regclass, spec ->> 'column')];
    foreach line in array lines loop
        execute line;
    end loop;
end
$$;
comment on function shardman.plain_sequence(jsonb, oid) is
    'a sequence of a sharded table becomes that of the plain one, which goes on above the numbers of all nodes';

create or replace function shardman.unshard_swap(relation text, shadow text, definition jsonb, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    parent constant oid := shardman.find_relation(relation);
    plain  constant oid := shardman.find_relation(shadow);
    schema constant text := (shardman.relation_parts(relation))[1];
    line   text;
begin
    -- The names that the table has now.
    for line in
        select format('alter index %I.%I rename to %I', schema, c.relname, shardman.unshard_name(cmd_id, 'was' || row_number() over (order by c.oid)))
          from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = parent
        union all
        select format('alter statistics %I.%I rename to %I', n.nspname, s.stxname, shardman.unshard_name(cmd_id, 'had' || row_number() over (order by s.oid)))
          from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace where s.stxrelid = parent
        union all
        -- Other nodes know the way to them by name.
        select format('alter table %s rename to %I', shardman.sql_name(p.part), shardman.unshard_name(cmd_id, 'p' || p.k))
          from shardman.unshard_parts(relation) p
        union all
        select format('alter table %s rename to %I', shardman.sql_name(relation), shardman.unshard_name(cmd_id, 'was'))
        union all
        select format('alter index %I.%I rename to %I', schema, shardman.unshard_name(cmd_id, 'ix' || x.i), x.item ->> 'name')
          from shardman.plain_items(definition) x
        union all
        select format('alter statistics %I.%I rename to %I', schema, shardman.unshard_name(cmd_id, 'st' || x.i), x.s ->> 'name')
          from jsonb_array_elements(definition -> 'statistics') with ordinality as x (s, i)
        union all
        select format('alter statistics %I.%I set schema %I', schema, x.s ->> 'name', shardman.statistics_schema(x.s, relation))
          from jsonb_array_elements(definition -> 'statistics') as x (s) where shardman.statistics_schema(x.s, relation) <> schema
        union all
        select format('alter table %s rename to %I', shardman.sql_name(shadow), (shardman.relation_parts(relation))[2])
    loop
        execute line;
    end loop;
    perform shardman.plain_rights_of(parent, plain);
    perform shardman.own_statistics(plain);
    perform shardman.plain_sequence(s, plain) from jsonb_array_elements(definition -> 'sequences') s;
    for line in
        select format('alter table %s add constraint %I %s not valid', plain::regclass, f ->> 'name', f ->> 'sql')
          from jsonb_array_elements(definition -> 'foreign_keys') f where not f ? 'to_columns' and shardman.may_refer(relation, f)
        union all
        select format('comment on constraint %I on %s is %L', f ->> 'name', plain::regclass, f ->> 'comment')
          from jsonb_array_elements(definition -> 'foreign_keys') f
         where not f ? 'to_columns' and shardman.may_refer(relation, f) and f ->> 'comment' is not null
        union all
        select * from shardman.plain_row_triggers(definition)
    loop
        execute line;
    end loop;
end
$$;
comment on function shardman.unshard_swap(text, text, jsonb, bigint) is
    'inside the cut-over: the plain table takes the names of the sharded one, of its keys and indexes, its rights, its sequences and its triggers';

create or replace function shardman.plain_rights_of(parent oid, plain oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line text;
begin
    perform shardman.give_to(plain, (select c.relowner from pg_class c where c.oid = parent));
    perform shardman.need_trusted_types((select jsonb_agg(to_jsonb(p)) from shardman.policies_of(parent) p));
    for line in
        select * from shardman.privilege_changes(parent, plain)
        union all select * from shardman.policy_changes(parent, plain, true)
        union all
        select format('comment on policy %I on %s is %L', p.polname, plain::regclass, obj_description(p.oid, 'pg_policy'))
          from pg_policy p where p.polrelid = parent and obj_description(p.oid, 'pg_policy') is not null
    loop
        execute line;
    end loop;
end
$$;
comment on function shardman.plain_rights_of(oid, oid) is 'owner, privileges and policies of a sharded table for the plain one';

create or replace function shardman.former_parts(former text) returns table (schema_name text, part_name text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select n.nspname::text, c.relname::text
      from pg_inherits s join pg_class c on c.oid = s.inhrelid join pg_namespace n on n.oid = c.relnamespace
     where s.inhparent = shardman.find_relation(former) order by c.oid
$$;
comment on function shardman.former_parts(text) is 'the partitions of what a sharded table is called once it is a plain one';

create or replace function shardman.validate_plain(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name_ name;
    tab   constant oid := shardman.find_relation(relation);
begin
    for name_ in select o.conname from pg_constraint o where o.conrelid = tab and o.contype = 'f' and not o.convalidated loop
        execute format('alter table %s validate constraint %I', tab::regclass, name_);
    end loop;
end
$$;
comment on function shardman.validate_plain(text) is 'validates the foreign keys of a table that was a sharded one, beside readers and writers';
