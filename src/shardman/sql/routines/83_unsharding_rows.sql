-- Unsharding: rows are copied into the shadow, what was written meanwhile is logged and brought up to date, and both are compared
-- (83_unsharding.sql).

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
