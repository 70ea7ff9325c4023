-- Splitting: rows are copied into the new data tables, what was written meanwhile is logged and brought up to date, and both are
-- compared (82_split.sql).

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
