-- How a plain table becomes a sharded one while it is used. The sequence is in
-- docs/commands/create_hash_partitions.md; names with _c<n> belong to command n alone.
--
-- The table's writes are logged by key (make_conversion_log). Its rows are copied under one snapshot into
-- the shadow, a sharded table under another name on each node that gets partitions (chunk_source). Then, again
-- and again, the rows whose keys are in the log are brought up to date there (81_conversion_nodes.sql), at last under a
-- lock on the table, and the names are exchanged (conversion_swap).

create or replace function shardman.base_type(type oid) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive t (oid, typtype, typbasetype) as (
        select oid, typtype, typbasetype from pg_type where oid = type
        union all
        select b.oid, b.typtype, b.typbasetype from t join pg_type b on b.oid = t.typbasetype where t.typtype = 'd'
    )
    select oid from t where typtype <> 'd'
$$;
comment on function shardman.base_type(oid) is 'what is left of a type without domains';

create or replace function shardman.conversion_key(relation text, out name text, out type text, out equals text)
returns setof record language sql stable set search_path = pg_catalog, pg_temp as $$
    select a.attname::text, format_type(shardman.base_type(a.atttypid), -1), format('operator(%I.%s)', n.nspname, o.oprname)
      from pg_index i
     cross join lateral unnest(i.indkey::int2[], i.indclass::oid[]) with ordinality as k (attnum, opclass, n)
      join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
      join pg_opclass c on c.oid = k.opclass
      join pg_amop m on m.amopfamily = c.opcfamily and m.amopstrategy = 3
       and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype
      join pg_operator o on o.oid = m.amopopr
      join pg_namespace n on n.oid = o.oprnamespace
     where i.indexrelid = shardman.identity_index(shardman.find_relation(relation)) and k.n <= i.indnkeyatts
     order by k.n
$$;
comment on function shardman.conversion_key(text) is
    'the columns that tell the rows of a table apart, with the operator by which they are equal; none when there is no such key';

create or replace function shardman.names_taken(relation text, partitions_count int) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(name), '[]')
      from (select relation as name
            union all
            select n from generate_series(0, partitions_count - 1) as k,
                   lateral (select shardman.suffixed(relation, '_' || k) as part) as p,
                   lateral (values (part), (shardman.data_table(part)), (shardman.route_table(part))) as v (n)) as wanted
     where octet_length((shardman.relation_parts(name))[2]) <= 63 and shardman.find_relation(name) is not null
$$;
comment on function shardman.names_taken(text, int) is
    'on another node: which names of a table that is to be sharded, and of its partitions, are in use; [] when all are free';

create or replace function shardman.names_used(relation text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(shardman.relation_text(n.nspname, c.relname)), '[]')
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = (shardman.relation_parts(relation))[1] and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c') and not c.relispartition
       and not exists (select from pg_trigger g where g.tgrelid = coalesce(shardman.table_of_sequence(c.oid), c.oid) and g.tgname = 'A_shardman_lock')
$$;
comment on function shardman.names_used(text) is
    'on another node: what has which name in the schema of a table that is to be sharded or shared, but for copies of shared tables: its sequences would need theirs';

-- The log ---------------------------------------------------------------------------------------

create or replace function shardman.make_conversion_log(relation text, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab  constant text := shardman.sql_name(relation);
    log  constant text := format('shardman.log_c%s', cmd_id);
    cols text;
    olds text;
    news text;
begin
    -- Base types: a domain may forbid the nulls of a truncation's row, or have a default.
    select string_agg(format('%I::%s as %I', name, type, name), ', '),
           string_agg(format('old.%I', name), ', '), string_agg(format('new.%I', name), ', ')
      into cols, olds, news from shardman.conversion_key(relation);
    execute format('create table %s as select %s from %s with no data', log, cols, tab);
    execute format('comment on table %s is %L', log,
        format('keys of %s written while command %s shards it; a row of nulls: the table was truncated', relation, cmd_id));
    -- As its owner: the application may not write here. The first key column is never null in a row.
    execute format($f$
        create function %1$s() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $b$
        begin
            if tg_op = 'TRUNCATE' then
                insert into %1$s default values;
            end if;
            if tg_op in ('DELETE', 'UPDATE') then
                insert into %1$s values (%2$s);
            end if;
            if tg_op = 'INSERT' or tg_op = 'UPDATE' and row(%2$s) is distinct from row(%3$s) then
                insert into %1$s values (%3$s);
            end if;
            return null;
        end
        $b$ $f$, log, olds, news);
end
$$;
comment on function shardman.make_conversion_log(text, bigint) is
    'makes the log of a conversion, shardman.log_c<cmd_id>, and the trigger function of the same name';

create or replace function shardman.start_conversion_log(relation text, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab  constant text := shardman.sql_name(relation);
    log  constant text := format('log_c%s', cmd_id);
begin
    -- Last in the order of names: what other triggers change is written by then.
    execute format('create trigger "~shardman_%s_row" after insert or update or delete on %s for each row execute function shardman.%s()', log, tab, log);
    execute format('create trigger "~shardman_%s_all" after truncate on %s for each statement execute function shardman.%s()', log, tab, log);
    -- Also for sessions with session_replication_role = replica.
    execute format('alter table %s enable always trigger "~shardman_%s_row", enable always trigger "~shardman_%s_all"', tab, log, log);
end
$$;
comment on function shardman.start_conversion_log(text, bigint) is
    'from the commit of this on every write to the table is in the log; needs a SHARE ROW EXCLUSIVE lock on the table';

create or replace function shardman.logged_table(cmd_id bigint) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.metadata_name(t.tgrelid)
      from pg_trigger t join pg_proc p on p.oid = t.tgfoid
     where p.proname = 'log_c' || cmd_id and p.pronamespace = 'shardman'::regnamespace
     limit 1
$$;
comment on function shardman.logged_table(bigint) is
    'the table whose writes a conversion logs, whatever it is called by now; null when there is none';

create or replace function shardman.stop_conversion_log(cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    log constant text := format('log_c%s', cmd_id);
    tab constant text := shardman.sql_name(shardman.logged_table(cmd_id));
begin
    if tab is not null then
        execute format('drop trigger if exists "~shardman_%s_row" on %s', log, tab);
        execute format('drop trigger if exists "~shardman_%s_all" on %s', log, tab);
    end if;
    execute format('drop function if exists shardman.%s()', log);
    -- What an older version has made.
    execute format('drop function if exists shardman.replay_c%s()', cmd_id);
    execute format('drop table if exists shardman.%s', log);
end
$$;
comment on function shardman.stop_conversion_log(bigint) is
    'drops the log of a conversion with all that belongs to it; needs an ACCESS EXCLUSIVE lock on the table';

-- The copy --------------------------------------------------------------------------------------

create or replace function shardman.plain_columns(relation text, alias text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select string_agg(format('%s%I', coalesce(alias || '.', ''), attname), ', ' order by attnum)
      from pg_attribute
     where attrelid = (select shardman.table_itself(relation)) and attnum > 0 and not attisdropped and attgenerated = ''
$$;
comment on function shardman.plain_columns(text, text) is 'the columns of a table that are not generated, as a list for SQL';

create or replace function shardman.check_filenode(relation text, filenode oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Nobody truncates or rewrites the table under the lock of this.
    if pg_relation_filenode(shardman.table_itself(relation)::regclass) <> filenode then
        raise exception '% was truncated or rewritten', relation using errcode = 'SHM03';
    end if;
end
$$;
comment on function shardman.check_filenode(text, oid) is
    'raises SHM03 when the table was truncated or rewritten since filenode was read; its blocks then mean something else';

create or replace function shardman.block_range(alias text, first_block bigint, blocks bigint) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select format('%1$s.ctid >= ''(%2$s,0)'' and %1$s.ctid < ''(%3$s,0)''', alias, first_block, first_block + blocks)
$$;

create or replace function shardman.need_trusted_shadow(shadow text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Its owner may be at work on it.
    execute format('lock table %s in row exclusive mode', shardman.sql_name(shadow));
    perform shardman.need_trusted(array_agg(t.relid::oid)) from pg_partition_tree(shardman.find_relation(shadow)::regclass) as t;
end
$$;
comment on function shardman.need_trusted_shadow(text) is
    'raises SHM09 where rows must not be written into the shadow; what it found stays true until the transaction ends';

create or replace function shardman.chunk_source(relation text, shadow text, definition jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('select %s from only %s as t where (%s)', shardman.plain_columns(relation, 't'), shardman.sql_name(relation),
                  shardman.partition_number(shardman.find_relation(shadow), definition))
$$;
comment on function shardman.chunk_source(text, text, jsonb) is
    'the query for rows of the plain table by the numbers of their partitions, but for its end: = any (numbers), and a range of blocks';

create or replace function shardman.copy_chunk(shadow text, source text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    n bigint;
begin
    perform shardman.need_trusted_shadow(shadow);
    execute format('insert into %s (%s) %s', shardman.sql_name(shadow), shardman.plain_columns(shadow, null), source);
    get diagnostics n = row_count;
    return n;
end
$$;
comment on function shardman.copy_chunk(text, text) is
    'copies rows of the table to the shadow on its own node; for a transaction with the snapshot of the copy. Returns how many';

-- Proof -----------------------------------------------------------------------------------------

create or replace function shardman.chunk_content(
    relation text, shadow text, definition jsonb, cmd_id bigint, filenode oid, first_block bigint, blocks bigint)
    returns table (k int, rows bigint, hash text)
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    differs text;
begin
    perform shardman.check_filenode(relation, filenode);
    if to_regclass(format('shardman.log_c%s', cmd_id)) is not null then
        select format('not exists (select from shardman.log_c%s as l where %s)', cmd_id,
                      string_agg(format('t.%I %s l.%I', name, equals, name), ' and '))
          into differs from shardman.conversion_key(relation);
    end if;
    perform shardman.need_trusted_shadow(shadow);
    return query execute format('select (%s)::int, count(*), sum(%s)::text from only %s as t where %s and %s group by 1',
                                shardman.partition_number(shardman.find_relation(shadow), definition), shardman.row_hash(relation, 't'),
                                shardman.sql_name(relation), shardman.block_range('t', first_block, blocks), coalesce(differs, 'true'));
end
$$;
comment on function shardman.chunk_content(text, text, jsonb, bigint, oid, bigint, bigint) is
    'number and order-independent hash of the rows in some blocks of the table, by the partitions that they are to lie in, but for those '
    'whose keys are in the log';

create or replace function shardman.catalog_state(relation text) returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    with rel as (select shardman.find_relation(relation) as oid),
    types as (select t.oid from rel join pg_type t on t.typrelid = rel.oid
              union all select t.typarray from rel join pg_type t on t.typrelid = rel.oid)
    select md5(string_agg(v.version, ',' order by v.version)) from (
        select 'c' || c.xmin from rel join pg_class c on c.oid = rel.oid
        union all select 'a' || a.xmin from rel join pg_attribute a on a.attrelid = rel.oid
        union all select 'f' || f.xmin from rel join pg_attrdef f on f.adrelid = rel.oid
        union all select 'o' || o.xmin from rel join pg_constraint o on o.conrelid = rel.oid
        union all select 'i' || i.xmin || ' ' || c.xmin from rel join pg_index i on i.indrelid = rel.oid join pg_class c on c.oid = i.indexrelid
        union all select 's' || s.xmin from rel join pg_statistic_ext s on s.stxrelid = rel.oid
        union all select 't' || t.xmin from rel join pg_trigger t on t.tgrelid = rel.oid
        union all select 'd' || d.xmin from rel join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = rel.oid
        union all select 'y' || d.xmin from types y join pg_depend d on d.refclassid = 'pg_type'::regclass and d.refobjid = y.oid) as v (version)
$$;
comment on function shardman.catalog_state(text) is
    'differs when anything about the table, or what depends on it, was changed in between; cheap enough for the cut-over';

create or replace function shardman.changed_definition(relation text, definition jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    now_ jsonb := shardman.with_whole_indexes(shardman.define_table(shardman.find_relation(relation),
                      jsonb_build_object('key', definition -> 'key', 'partition_key', definition -> 'partition_key'),
                      definition ->> 'expr', (definition ->> 'partitions_count')::int));
begin
    -- What is left in sequences may change: where they stand.
    return (select string_agg(coalesce(o.key, n.key), ', ')
              from jsonb_each(definition - 'sequences') as o full join jsonb_each(now_ - 'sequences') as n using (key)
             where o.value is distinct from n.value);
end
$$;
comment on function shardman.changed_definition(text, jsonb) is
    'what of a table is no longer as it was described; null when all is';

-- The cut-over -------------------------------------------------------------------------------------

create or replace function shardman.snapshots_before(since timestamptz, since_xid xid) returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select string_agg(format('pid %s (%s, %s, in its transaction for %s)', a.pid, a.usename,
               coalesce(nullif(a.application_name, ''), 'no application name'),
               date_trunc('second', clock_timestamp() - a.xact_start)), ', ')
      from pg_stat_activity a
     where a.datname = current_database()
       and a.backend_type = 'client backend'
       and a.state <> 'idle in transaction'
       and a.xact_start < since
       and age(a.backend_xmin) > age(since_xid)
       and a.pid <> pg_backend_pid()
       and a.application_name not like 'postgres\_fdw%'
       and a.application_name not like 'shardman%'
$$;
comment on function shardman.snapshots_before(timestamptz, xid) is
    'transactions at work whose snapshot may be older than a copy that was ready then: they would not see its rows; '
    'null when there are none. Those that are idle: shardman.old_snapshots()';

create or replace function shardman.overrun_sequences(definition jsonb) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    spec  jsonb;
    at    bigint;
    names text[];
begin
    for spec in select s from jsonb_array_elements(definition -> 'sequences') as s loop
        at := pg_sequence_last_value(shardman.find_relation(spec ->> 'name')::regclass);
        if at > (spec ->> 'base')::bigint then
            names := names || (spec ->> 'name');
        end if;
    end loop;
    return array_to_string(names, ', ');
end
$$;
comment on function shardman.overrun_sequences(jsonb) is
    'sequences of the plain table that have given numbers which now are other nodes''; null when there are none';

create or replace function shardman.conversion_swap(relation text, shadow text, aside name, definition jsonb, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    views constant text[] := array(select shardman.view_text(v) from shardman.following_views(shardman.find_relation(relation)) v where aside is not null);
    part  text;
begin
    execute format('drop table if exists shardman.rows_c%s', cmd_id);
    perform shardman.name_sequences(definition, shadow);
    if aside is not null then
        -- Now the partitions have the rows, and the plain table has no say any more.
        perform shardman.drop_references(shardman.find_relation(relation));
    end if;
    -- Of one that was called so before.
    delete from shardman.changed_constraints c where (c.relation, c.name) = (conversion_swap.relation, '');
    for part in select p.part from shardman.local_parts(shadow) p where jsonb_array_length(definition -> 'foreign_keys') > 0 or definition ? 'row_triggers' loop
        perform shardman.add_references(part, definition), shardman.attached_row_triggers(part, definition);
    end loop;
    if aside is not null then
        execute format('alter table %s rename to %I', shardman.sql_name(relation), aside);
    end if;
    execute format('alter table %s rename to %I', shardman.sql_name(shadow), (shardman.relation_parts(relation))[2]);
    perform shardman.rewrite_views(views);
end
$$;
comment on function shardman.conversion_swap(text, text, name, jsonb, bigint) is
    'inside the cut-over, on each node: the shadow and its sequences take the names of the table and its sequences. aside: what the plain table is '
    'called from now on, on its node, where its views are made to read the sharded one';
