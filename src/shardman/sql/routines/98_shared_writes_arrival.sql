-- What arrives of a shared table from the node where it was written: the rows become the same change here (98_shared_writes.sql).

create or replace function shardman.shared_key(rel oid) returns table (col text, op text, n int)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select quote_ident(a.attname), format('operator(%I.%s)', s.nspname, o.oprname), k.n::int
      from pg_index i cross join unnest(i.indkey::int2[], i.indclass::oid[]) with ordinality as k (attnum, class, n)
      join pg_attribute a on a.attrelid = rel and a.attnum = k.attnum
      join pg_opclass c on c.oid = k.class
      join pg_amop m on m.amopfamily = c.opcfamily and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype and m.amopstrategy = 3
      join pg_operator o on o.oid = m.amopopr join pg_namespace s on s.oid = o.oprnamespace
     where i.indrelid = rel and i.indisprimary and k.n <= i.indnkeyatts
$$;
comment on function shardman.shared_key(oid) is 'the columns of a table''s primary key, and the operator by which it is unique';

create or replace function shardman.shared_change(rel oid, op text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp set row_security = on as $$
declare
    match  constant text := (select string_agg(format('t.%s %s (x.o).%1$s', k.col, k.op), ' and ' order by k.n) from shardman.shared_key(rel) k);
    -- Those that are given a value: what is generated follows, and no statement can have changed the others.
    cols   constant text[] := array(select quote_ident(a.attname) from pg_attribute a
                                     where a.attrelid = rel and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                                       and (op = 'insert' or a.attidentity <> 'a')
                                       and (op <> 'update' or quote_ident(a.attname) not in (select k.col from shardman.shared_key(rel) k))
                                     order by a.attnum);
    listed constant text := array_to_string(cols, ', ');
    given  constant text := (select string_agg('(x.n).' || c, ', ' order by i) from unnest(cols) with ordinality as u (c, i));
    one    constant text := format('(select r::%s as o, r::%1$s as n from unnest($1) as u (r) offset 0) as x', rel::regclass);
begin
    if match is null and op not in ('insert', 'truncate') then
        raise exception '% has no primary key just now, by which other nodes would find its rows', shardman.metadata_name(rel)
            using errcode = 'object_not_in_prerequisite_state', hint = 'Write to it before its key is dropped, or when it has the other one.';
    end if;
    if op <> 'truncate' and listed = '' then
        return case op when 'insert' then format('insert into %s select from unnest($1)', rel::regclass) end;
    end if;
    return case op
        when 'insert' then format('insert into %s (%s) overriding system value select %s from %s', rel::regclass, listed, given, one)
        when 'update' then format('update only %s as t set (%s) = row(%s) from %s where %s', rel::regclass, listed, given, one, match)
        when 'key' then format('update only %s as t set (%s) = row(%s) from (select $1[1]::%1$s as o, $1[2]::%1$s as n offset 0) as x where %4$s',
                               rel::regclass, listed, given, match)
        when 'delete' then format('delete from only %s as t using %s where %s', rel::regclass, one, match)
        when 'truncate' then format('truncate %s', (
            -- Whoever could truncate it has truncated what refers to it as well.
            with recursive those (oid) as (
                select rel
                union
                select o.conrelid from those join pg_constraint o on o.confrelid = those.oid and o.contype = 'f'
                  join shardman.shared_locks l on shardman.find_relation(l.relation) = o.conrelid
            )
            select string_agg(oid::regclass::text, ', ') from those)) end;
end
$$;
comment on function shardman.shared_change(oid, text) is
    'the statement that makes a change of a shared table. $1: rows as text; for key the old and the new one. Null: nothing is to be done';

create or replace function shardman.shared_acted(rel oid, op text) returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((coalesce(nullif(current_setting('shardman.shared_acted', true), ''), '{}')::jsonb ->> (rel || op))::bigint, 0)
$$;
comment on function shardman.shared_acted(oid, text) is
    'how many rows of a shared table foreign keys have deleted here, or given another key, in this transaction, of which the sender has not told yet';

create or replace function shardman.count_shared_acted(rel oid, op text, more bigint) returns void
language sql set search_path = pg_catalog, pg_temp as $$
    select set_config('shardman.shared_acted', (coalesce(nullif(current_setting('shardman.shared_acted', true), ''), '{}')::jsonb
                                                || jsonb_build_object(rel || op, greatest(0, shardman.shared_acted(rel, op) + more)))::text, true)
$$;
comment on function shardman.count_shared_acted(oid, text, bigint) is 'adds to shardman.shared_acted, or takes from it';

create or replace function shardman.check_shared_truncate(rel oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    -- PostgreSQL's own error would advise CASCADE, which has brought us here: it has emptied the data tables of one node only.
    referring constant text := (select min(coalesce(pg_partition_root(o.conrelid), o.conrelid)::regclass::text) from pg_constraint o
                                 where o.contype = 'f' and o.confrelid = rel
                                   and not exists (select from shardman.shared_locks l
                                                    where shardman.find_relation(l.relation) = o.conrelid));
begin
    if referring is not null then
        raise exception 'TRUNCATE of the shared table % does not empty %, which refers to it on all nodes', shardman.metadata_name(rel), referring
            using errcode = 'feature_not_supported',
                  hint = format('Empty %s first, then use DELETE instead of TRUNCATE for the shared table.', referring);
    end if;
end
$$;
comment on function shardman.check_shared_truncate(oid) is 'refuses to empty a shared table to which a table refers that is not shared';

create or replace function shardman.make_shared_change(rel oid, op text, rows text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    statement constant text := shardman.shared_change(rel, op);
    wanted    constant bigint := case op when 'key' then 1 else cardinality(rows) end;
    made      bigint;
begin
    if statement is null then
        return;
    end if;
    if op = 'truncate' then
        perform shardman.check_shared_truncate(rel);
    end if;
    perform set_config('shardman.shared', 'arrives', true);
    execute statement using rows;
    get diagnostics made = row_count;
    perform set_config('shardman.shared', '', true);
    if op in ('delete', 'key') then
        -- The triggers have counted those that are made here, too.
        perform shardman.count_shared_acted(rel, op, -made);
        if made < wanted and wanted - made <= shardman.shared_acted(rel, op) then
            perform shardman.count_shared_acted(rel, op, made - wanted);
            return;
        end if;
    end if;
    if op <> 'truncate' and made <> wanted then
        raise exception '% of % rows of % were found on node %', made, wanted, shardman.metadata_name(rel), (shardman.shared_nodes('')).me
            using errcode = 'serialization_failure',
                  hint = 'Repeat the transaction. If it comes again, the copies differ: see shardman check --data.';
    end if;
end
$$;
comment on function shardman.make_shared_change(oid, text, text[]) is 'makes a change of a shared table here, which is not sent on';

create or replace function shardman.on_shared_arrival() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp set datestyle = 'ISO' set intervalstyle = 'postgres' as $$
declare
    here constant record := shardman.shared_nodes(new.relation);
begin
    if new.nodes is distinct from here.nodes or here.me <> all (here.nodes) then
        raise exception 'node % knows of other copies of % than who writes to it', here.me, new.relation
            using errcode = 'serialization_failure', hint = 'Repeat the transaction: a node has just been added or removed.';
    end if;
    if new.op in ('turn', 'free') then
        -- Nothing comes over this connection but locks. Its commit has no rows that replicas could lose, and must not wait for them: after
        -- DDL of a sharded table in the same transaction they wait for locks that end with the commits on other nodes.
        perform set_config('synchronous_commit', 'local', true);
    end if;
    if new.op = 'turn' then
        perform shardman.take_shared_lock(new.relation, 'turn');
    elsif new.op = 'free' then
        perform shardman.await_shared_lock(new.relation);
    else
        perform shardman.take_shared_lock(new.relation, 'work');
        perform shardman.make_shared_change(shardman.find_relation(shardman.shared_now(new.relation)), new.op, new.rows);
    end if;
    return new;
end
$$;
comment on function shardman.on_shared_arrival() is 'makes a change of a shared table that comes from another node';
create or replace trigger arrival instead of insert on shardman.shared_inbox
    for each row execute function shardman.on_shared_arrival();
