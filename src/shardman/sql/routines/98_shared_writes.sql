-- Writes to a shared table, in the writer's own transaction.
--
-- Before a statement its trigger takes a row lock ("turn") on the first of the table's nodes: a table has one writer at a time in
-- the whole cluster, and who waits does so on one node, where PostgreSQL sees a circle. After the statement triggers send what has
-- changed, rows as text, through a foreign table (a door) for each other node to the view shardman.shared_inbox there, whose
-- trigger writes it into the table, and holds another lock there ("work") as long as its transaction is open.
--
-- What a session on another node sees is of the instant of its first statement (postgres_fdw asks for REPEATABLE READ), so it must
-- not begin before the last writer has ended there: it would find rows that were changed since, 40001. So the first lock, and the
-- look whether "work" is free on each node, go through connections of their own (servers shardman_node_N_c0), for which there are doors too.
--
-- The trigger function of a table belongs to the table's owner and acts as him, so what is sent arrives as him, by his road
-- login (73_roads.sql): he can do there no more than he could do himself. Whoever writes needs his rights on the node where he is.
-- What has arrived is not sent on: shardman.is_arriving() says so, which an ordinary role cannot feign in a session of its own.
--
-- Every message says which nodes have copies, as its sender knows it. Where that is not what the receiver knows, the statement
-- fails and can be repeated: so no copy is left out while the metadata are on their way.
--
-- Rows go by statement: INSERT and DELETE of rows that refer to each other are right only together. Of an UPDATE, rows whose
-- primary key changes go one by one, before foreign keys act on it here (the trigger's name is sorted before PostgreSQL's own):
-- the foreign keys act by themselves on each node. What they did to rows of another shared table is sent as well, for nothing tells
-- it from a statement, and comes behind what they act on: rows that are not found any more were theirs, by the count of those that
-- they have deleted, or given another key, in the same transaction there (shardman.shared_acted).
--
-- What a crash leaves: nothing, before the first node commits. Nodes commit one after the other, so a crash in that instant
-- can leave copies apart: they are compared in the background (lord/watchers/shared_scrub.py), and create_shared_table makes them the same.

create or replace function shardman.is_arriving() returns bool
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    sender oid;
begin
    if current_setting('shardman.shared', true) is distinct from 'arrives' then
        return false;
    end if;
    sender := (select r.oid from pg_roles r where r.rolname = session_user);
    return not shardman.is_ordinary(sender) or shardman.road_cluster(sender) is not null;
end
$$;
comment on function shardman.is_arriving() is
    'whether what is written to a shared table comes from another node: in a session of a road login, or of the nodes'' role';

create or replace function shardman.shared_nodes(relation text, out nodes int[], out me int)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select array(select c.node from shardman.shared_copies c where c.relation = shardman.shared_now(shared_nodes.relation) order by c.node),
           (select l.node_id from shardman.local l where not l.leaving and not shardman.is_copy())
$$;
comment on function shardman.shared_nodes(text) is 'the nodes that have copies of a shared table, as this node knows it, and which one this is; null on a copy of a node';

create or replace function shardman.shared_door(node int, op text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select format('shardman.%I', case when op in ('turn', 'free') then 'shared_lock_' else 'shared_door_' end || node)
$$;
comment on function shardman.shared_door(int, text) is 'the foreign table through which locks, or changes, of shared tables go to a node';

create or replace function shardman.pass_shared(node int, relation text, op text, nodes int[], rows text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('insert into %s values ($1, $2, $3, $4)', shardman.shared_door(node, op)) using relation, op, nodes, rows;
exception when sqlclient_unable_to_establish_sqlconnection or connection_failure then
    raise exception 'node % cannot be reached, and a shared table is written on all nodes or on none', node
        using errcode = 'connection_failure', detail = sqlerrm, hint = 'Start it, or remove it with shardman.rm_node, and try again.';
end
$$;
comment on function shardman.pass_shared(int, text, text, int[], text[]) is 'sends a change of a shared table to a node';

create or replace function shardman.take_shared_lock(relation text, kind text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set row_security = on as $$
-- With row_security off, as whoever restores a dump has it, the policy of the locks would be an error.
declare
    name constant text := shardman.shared_lock_name(relation);
begin
    perform from shardman.shared_locks l where (l.relation, l.kind) = (name, take_shared_lock.kind) for update;
    if not found then
        raise exception '% is just being shared or unshared', relation
            using errcode = 'serialization_failure', hint = 'Repeat the transaction.';
    end if;
exception when query_canceled then
    -- Whoever calls shardman.make_way has that lock, by shardman.hold_way; row locks do not have it.
    if exists (select from pg_locks k where k.locktype = 'relation' and k.relation = 'shardman.shared_locks'::regclass and k.granted
                  and k.mode = 'ShareUpdateExclusiveLock' and k.database = (select d.oid from pg_database d where d.datname = current_database())) then
        raise exception 'the definition of % is just being changed', relation
            using errcode = 'serialization_failure', hint = 'Repeat the transaction.';
    end if;
    raise;
end
$$;
comment on function shardman.take_shared_lock(text, text) is 'takes a lock of a shared table on this node, to the end of the transaction, as its owner';

create or replace function shardman.await_shared_lock(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    begin
        perform shardman.take_shared_lock(relation, 'work');
        raise exception 'free' using errcode = 'SHM10';
    exception when sqlstate 'SHM10' then
        -- Given back with the block: another session of this writer's is going to take it.
        null;
    end;
end
$$;
comment on function shardman.await_shared_lock(text) is 'waits until nobody is at work on the copy of a shared table on this node';

create or replace function shardman.wait_for_turn(relation text, nodes int[], me int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    node int;
begin
    if nodes[1] = me then
        perform shardman.take_shared_lock(relation, 'turn');
    else
        perform shardman.pass_shared(nodes[1], relation, 'turn', nodes, '{}');
    end if;
    foreach node in array nodes loop
        if node <> me then
            perform shardman.pass_shared(node, relation, 'free', nodes, '{}');
        end if;
    end loop;
    perform shardman.take_shared_lock(relation, 'work');
end
$$;
comment on function shardman.wait_for_turn(text, int[], int) is 'waits until no other transaction of the cluster writes to a shared table, and takes its locks';

create or replace function shardman.wait_in_trigger(relation text, nodes int[], me int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.wait_for_turn(relation, nodes, me);
exception when query_canceled then
    -- Other rows of the statement are on other nodes, and a trigger there has the table until this one is done. Where the statement was sent it is written
    -- down who has waited for whom, with only one to name; a statement from another node is not shown what is newer than itself.
    if current_setting('application_name') not like 'postgres_fdw from %' and coalesce(shardman.deadlock_of(pg_backend_pid()), ';') like '%;%' then
        raise;
    end if;
    raise exception 'a trigger of a sharded table waited for % in a circle: each node that has rows of the statement writes to it, and only one can', relation
        using errcode = 'SHM12', detail = sqlerrm,
              hint = format('Let the statement change rows of one node, or let the trigger write to a sharded table: unshare %s and shard it.', relation);
end
$$;
comment on function shardman.wait_in_trigger(text, int[], int) is
    'shardman.wait_for_turn within a trigger: says what it was if the shardlord has ended the wait, as it ends circles';

create or replace function shardman.lock_shared(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    held   constant text := coalesce(current_setting('shardman.shared_locked', true), '');
    copies record;
begin
    -- The setting is the user's to change. Who does so waits for others where he need not have, or they for him.
    if relation = any (string_to_array(held, chr(10))) then
        return;
    elsif shardman.is_made_here_and_now(shardman.find_relation(relation)) then
        -- Nobody else sees it, nor its locks, which are taken over another connection.
        perform set_config('shardman.shared_locked', held || chr(10) || relation, true);
        return;
    end if;
    select * into copies from shardman.shared_nodes(relation);
    if copies.me is null then
        raise exception '% is a shared table, and this database is no node of its cluster any more', relation
            using errcode = 'object_not_in_prerequisite_state',
                  hint = format('As a plain table it can be written: DROP FUNCTION %s() CASCADE.', shardman.sql_name(shardman.shared_function(relation)));
    elsif copies.me <> all (copies.nodes) then
        raise exception 'the copy of % on this node is not used: it is just being made or dropped', relation
            using errcode = 'serialization_failure', hint = 'Repeat the transaction, or write through another node.';
    end if;
    -- The first depth is this table's own trigger.
    if pg_trigger_depth() > 1 then
        perform shardman.wait_in_trigger(relation, copies.nodes, copies.me);
    else
        perform shardman.wait_for_turn(relation, copies.nodes, copies.me);
    end if;
    perform set_config('shardman.shared_locked', held || chr(10) || relation, true);
end
$$;
comment on function shardman.lock_shared(text) is 'before a statement that writes to a shared table: waits for all other writers of the cluster';

create or replace function shardman.send_shared(relation text, op text, rows text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    copies record;
    node   int;
begin
    select * into copies from shardman.shared_nodes(relation);
    foreach node in array copies.nodes loop
        if node <> copies.me then
            perform shardman.pass_shared(node, relation, op, copies.nodes, rows);
        end if;
    end loop;
end
$$;
comment on function shardman.send_shared(text, text, text[]) is 'after a statement: what it has changed, to all other copies';

create or replace view shardman.shared_inbox as
    select null::text as relation, null::text as op, null::int[] as nodes, null::text[] as rows where false;
comment on view shardman.shared_inbox is 'a change of a shared table that is inserted here is made, as who inserts it: it comes from another node';

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

create or replace function shardman.rows_at_once(rel oid) returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when exists (select from pg_constraint o where o.conrelid = rel and o.confrelid = rel and o.contype = 'f') then 1000000000000 else 1000 end
$$;
comment on function shardman.rows_at_once(oid) is
    'how many rows of a shared table are sent at once; of one whose rows refer to each other all of a statement''s are: before the last '
    'one is there the first may not be right';

create or replace function shardman.keys_act_on(rel oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_constraint o
                    where o.conrelid = rel and o.contype = 'f' and (o.confupdtype in ('c', 'n', 'd') or o.confdeltype in ('c', 'n', 'd')))
$$;
comment on function shardman.keys_act_on(oid) is 'whether foreign keys of a table write to it: one statement may then change a row more than once';

create or replace function shardman.rows_as_they_are(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('select array_agg(x.r) from (select y.r, (row_number() over () - 1) / $1 as n '
                  'from (select distinct t::text as r from shardman_new d join only %s t on %s) as y) as x group by x.n',
                  rel::regclass, (select string_agg(format('t.%s %s d.%1$s', k.col, k.op), ' and ' order by k.n) from shardman.shared_key(rel) k))
$$;
comment on function shardman.rows_as_they_are(oid) is
    'in a trigger, the rows of shardman_new as they are now, $1 at once: each once, and without those that have been deleted or given another key since';

create or replace function shardman.shared_body(relation text) returns text
language sql immutable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    select replace($body$
declare
    size  bigint;
    rows_ text[];
begin
    if shardman.is_arriving() then
        if tg_when = 'AFTER' and tg_op = 'DELETE' then
            perform shardman.count_shared_acted(tg_relid, 'delete', (select count(*) from shardman_old));
        elsif tg_when = 'AFTER' and tg_level = 'ROW' then
            perform shardman.count_shared_acted(tg_relid, 'key', 1);
        end if;
        return null;
    end if;
    size := shardman.rows_at_once(tg_relid);
    if tg_when = 'BEFORE' then
        perform shardman.lock_shared(<relation>);
    elsif tg_op = 'TRUNCATE' then
        perform shardman.send_shared(<relation>, 'truncate', '{}');
    elsif tg_level = 'ROW' then
        perform shardman.send_shared(<relation>, 'key', array[old::text, new::text]);
    elsif tg_op = 'UPDATE' and shardman.keys_act_on(tg_relid) then
        for rows_ in execute shardman.rows_as_they_are(tg_relid) using size loop
            perform shardman.send_shared(<relation>, 'update', rows_);
        end loop;
    elsif tg_op = 'DELETE' then
        for rows_ in select array_agg(x.r) from (select (d.*)::text as r, (row_number() over () - 1) / size as n from shardman_old as d) as x group by x.n loop
            perform shardman.send_shared(<relation>, 'delete', rows_);
        end loop;
    else
        for rows_ in select array_agg(x.r) from (select (d.*)::text as r, (row_number() over () - 1) / size as n from shardman_new as d) as x group by x.n loop
            perform shardman.send_shared(<relation>, lower(tg_op), rows_);
        end loop;
    end if;
    return null;
end
$body$, '<relation>', quote_literal(relation))
$$;
comment on function shardman.shared_body(text) is 'the text of the trigger function of a shared table';

create or replace function shardman.shared_trigger_forms() returns table (name text, form text)
language sql immutable set search_path = pg_catalog, pg_temp as $$
    values ('A_shardman_lock', 'before insert or update or delete or truncate <on> for each statement <do>'),
           ('A_shardman_key', 'after update <on> for each row when (<changed>) <do>'),
           ('shardman_insert', 'after insert <on> referencing new table as shardman_new for each statement <do>'),
           ('shardman_update', 'after update <on> referencing new table as shardman_new for each statement <do>'),
           ('shardman_delete', 'after delete <on> referencing old table as shardman_old for each statement <do>'),
           ('shardman_truncate', 'after truncate <on> for each statement <do>')
$$;
comment on function shardman.shared_trigger_forms() is 'the triggers of a copy of a shared table: their names, and what follows them';

create or replace function shardman.shared_triggers(relation text) returns table (name text, statement text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (
        select shardman.name_here(relation) as tab, shardman.sql_name(shardman.shared_function(relation)) || '()' as func,
               (select format('(%s) is distinct from (%s)', string_agg('old.' || k.col, ', ' order by k.n), string_agg('new.' || k.col, ', ' order by k.n))
                  from shardman.shared_key(shardman.find_relation(relation)) k) as changed
    )
    select t.name, format('create or replace trigger %I %s', t.name,
                          replace(replace(replace(t.form, '<on>', 'on ' || me.tab), '<changed>', me.changed), '<do>', 'execute function ' || me.func))
      from me cross join shardman.shared_trigger_forms() t
$$;
comment on function shardman.shared_triggers(text) is 'the triggers of a copy of a shared table, and the statements that make them';

create or replace function shardman.shared_lacks(relation text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    rel  constant oid := shardman.find_relation(relation);
    func constant oid := shardman.find_function(shardman.shared_function(relation));
begin
    return (
        select case when rel is null then 'the table is missing'
                    when c.relkind <> 'r' then 'another relation has the name of the table'
                    when not exists (select from pg_index i where i.indrelid = rel and i.indisprimary) then 'the table has no primary key'
                    when f.oid is null or f.proowner <> c.relowner or not f.prosecdef or f.prosrc <> shardman.shared_body(shared_lacks.relation)
                         then 'its trigger function is not what it must be'
                    when shardman.names_other_key(rel) then 'its trigger for changed keys names other columns'
                    when exists (select from shardman.own_triggers(rel) o where o.definition = o.plain) then 'its own triggers would act on what arrives'
                    else (select 'it lacks triggers: ' || string_agg(w.name, ', ' order by w.name)
                            from shardman.shared_trigger_forms() w
                           where not exists (select from pg_trigger g where g.tgrelid = rel and g.tgname = w.name and g.tgenabled = 'O' and g.tgfoid = func))
                    end
          from (values (1)) as one left join pg_class c on c.oid = rel left join pg_proc f on f.oid = func);
end
$$;
comment on function shardman.shared_lacks(text) is 'what the copy of a shared table on this node lacks; null where it has all';

create or replace view shardman.shared_state as
    -- Looked at once for each copy of this node: offset keeps the planner from asking of other nodes' too, and for each use.
    select c.relation, x.problem
      from (select c.relation from shardman.shared_copies c join shardman.local l on l.node_id = c.node offset 0) as c
     cross join lateral (select shardman.shared_lacks(c.relation) as problem offset 0) as x;
comment on view shardman.shared_state is 'this node: its copies of shared tables; problem is null where all is well';

create or replace function shardman.lay_shared_function(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    func   constant text := shardman.sql_name(shardman.shared_function(relation));
    owner_ constant name := (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = shardman.find_relation(relation));
begin
    execute format('create or replace function %s() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp '
                   'set datestyle = ''ISO'' set intervalstyle = ''postgres'' set extra_float_digits = 3 set bytea_output = ''hex'' as %L',
                   func, shardman.shared_body(relation));
    execute format('alter function %s() owner to %I', func, owner_);
    execute format('revoke all on function %s() from public', func);
    execute format('comment on function %s() is %L', func, 'pg_shardman: writes to the shared table ' || relation || ' go to all its copies');
end
$$;
comment on function shardman.lay_shared_function(text) is 'makes the trigger function of a shared table what it must be';

create or replace function shardman.arm_shared(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel  constant oid := shardman.find_relation(relation);
    item text;
begin
    insert into shardman.shared_locks select shardman.shared_lock_name(relation), k from unnest(array['turn', 'work']) k on conflict do nothing;
    if shardman.shared_lacks(relation) is null then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.lay_shared_function(relation);
    for item in select t.statement from shardman.shared_triggers(relation) t loop
        execute item;
    end loop;
    perform shardman.guard_triggers(rel);
    for item in select g.tgname from pg_trigger g join shardman.shared_triggers(relation) w on w.name = g.tgname where g.tgrelid = rel and g.tgenabled <> 'O' loop
        execute format('alter table %s enable trigger %I', rel::regclass, item);
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.arm_shared(text) is 'gives the copy of a shared table on this node its triggers; safe to repeat';

create or replace function shardman.shared_owners() returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relowner from shardman.shared_tables t join pg_class c on c.oid = shardman.find_relation(t.relation)
    union
    -- Those as well whose table is not here yet: what they make elsewhere is sent here. To a lord that is no worker nothing is.
    select r.oid from shardman.shared_tables t join pg_roles r on r.rolname = t.definition ->> 'owner'
     where not exists (select from shardman.nodes n where n.id = shardman.my_id() and n.lord and n.worker_status is null)
$$;
comment on function shardman.shared_owners() is 'the owners of shared tables, here and by the metadata';

create or replace function shardman.owns_shared(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(pg_has_role(current_user, (select c.relowner from pg_class c where c.oid = shardman.find_relation(shardman.shared_of_lock(relation))), 'usage'), false)
$$;
comment on function shardman.owns_shared(text) is 'whether this role owns the shared table whose locks are kept under a name';

create or replace function shardman.let_shared_owners_in() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner_ oid;
    thing  regclass;
begin
    for owner_ in select o from shardman.shared_owners() o where shardman.is_ordinary(o) loop
        if not has_schema_privilege(owner_, 'shardman', 'usage') then
            execute format('grant usage on schema shardman to %I', pg_get_userbyid(owner_));
        end if;
        if not has_table_privilege(owner_, 'shardman.shared_locks', 'update') then
            execute format('grant select, update on shardman.shared_locks to %I', pg_get_userbyid(owner_));
        end if;
        for thing in select c.oid from pg_class c
                      where c.relnamespace = 'shardman'::regnamespace and c.relname ~ '^(ddl|shared_(inbox|(door|lock)_[0-9]+))$' loop
            if not has_table_privilege(owner_, thing, 'insert') then
                execute format('grant insert on %s to %I', thing, pg_get_userbyid(owner_));
            end if;
        end loop;
    end loop;
end
$$;
comment on function shardman.let_shared_owners_in() is 'lets the owners of shared tables do what the triggers of their tables do, and DDL';

create or replace function shardman.lock_server(node int) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$ select shardman.node_server(node) || '_c0' $$;
comment on function shardman.lock_server(int) is 'the foreign server by which locks of shared tables are taken on a node: a connection of its own. No command has the number';

create or replace function shardman.mend_lock_server(node shardman.nodes) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    server constant text := shardman.lock_server(node.id);
    found_ constant pg_foreign_server := (select s from pg_foreign_server s where s.srvname = server);
    change constant text := shardman.options_change((found_).srvoptions, shardman.wanted_server(node));
begin
    if (found_).oid is null then
        perform shardman.make_server(server, change);
        return true;
    elsif change is not null then
        perform shardman.need_our_server(server);
        execute format('alter server %I options (%s)', server, change);
    end if;
    return false;
end
$$;
comment on function shardman.mend_lock_server(shardman.nodes) is 'the server of shardman.lock_server, as it must be; whether it was made';

create or replace function shardman.mend_shared_doors() returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    node_  shardman.nodes;
    kind   text;
    gone   record;
    made   bool := false;
begin
    for node_ in select n.* from shardman.reachable_nodes() n join pg_foreign_server s on s.srvname = shardman.node_server(n.id)
                  where n.id in (select c.node from shardman.shared_copies c)
                    and shardman.my_id() in (select c.node from shardman.shared_copies c) loop
        made := shardman.mend_lock_server(node_) or made;
        foreach kind in array array['turn', 'insert'] loop
            if to_regclass(shardman.shared_door(node_.id, kind)) is null then
                execute format('create foreign table %s (relation text, op text, nodes int[], rows text[]) server %I '
                               'options (schema_name ''shardman'', table_name ''shared_inbox'', batch_size ''1'')', shardman.shared_door(node_.id, kind),
                               case kind when 'turn' then shardman.lock_server(node_.id) else shardman.node_server(node_.id) end);
                execute format('comment on foreign table %s is %L', shardman.shared_door(node_.id, kind),
                               case kind when 'turn' then 'locks' else 'changes' end || ' of shared tables go through it to node ' || node_.id);
            end if;
        end loop;
    end loop;
    for gone in select c.oid, substring(c.relname from '[0-9]+$')::int as node, c.relname ~ '_lock_' as lock
                  from pg_class c where c.relnamespace = 'shardman'::regnamespace and c.relkind = 'f' and c.relname ~ '^shared_(door|lock)_[0-9]+$' loop
        if gone.node not in (select x.node from shardman.shared_copies x) or shardman.my_id() not in (select x.node from shardman.shared_copies x) then
            execute format('drop foreign table %s', gone.oid::regclass);
            if gone.lock then
                perform shardman.try_sql(format('drop user mapping if exists for %I server %I', m.usename, m.srvname))
                   from pg_user_mappings m where m.srvname = shardman.lock_server(gone.node) and m.umuser <> 0;
                perform shardman.drop_server(shardman.lock_server(gone.node));
            end if;
        end if;
    end loop;
    return made;
end
$$;
comment on function shardman.mend_shared_doors() is 'doors to each node with copies of shared tables, and to no other; whether a server was made, which needs user mappings';

create or replace function shardman.shared_without_locks() returns table (relation text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relation from shardman.shared_copies c
     where c.node = shardman.my_id() and 2 > (select count(*) from shardman.shared_locks l where l.relation = shardman.shared_lock_name(c.relation))
$$;
comment on function shardman.shared_without_locks() is 'this node: its copies of shared tables for which nobody could wait';

create or replace function shardman.mend_shared() returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    lacking text[];
    tab     text;
    failed  text[] := '{}';
    problem text;
begin
    begin
        perform shardman.let_shared_owners_in();
    exception when others then
        perform shardman.note_problem('shared tables', sqlerrm);
        failed := failed || 'shared tables'::text;
    end;
    lacking := array(select s.relation from shardman.shared_state s where s.problem is not null);
    foreach tab in array lacking loop
        perform shardman.try_follow_name(tab);
    end loop;
    foreach tab in array lacking || array(select l.relation from shardman.shared_without_locks() l) loop
        begin
            if shardman.is_behind_name(tab) then
                continue;
            elsif shardman.find_relation(tab) is null then
                raise exception '%', shardman.shared_lacks(tab);
            elsif shardman.is_made_now(tab) and not shardman.is_a_copy(tab) then
                -- Who shares a table of his own by himself does not get others' tables of that name.
                raise exception 'it is no copy of the shared table of that name' using hint = 'Rename or drop one of them.';
            end if;
            perform shardman.arm_shared(tab);
        exception
            when lock_not_available or deadlock_detected then
                null;
            when others then
                get stacked diagnostics problem = message_text;
                perform shardman.note_problem(tab, problem);
                failed := failed || tab;
        end;
    end loop;
    return failed;
end
$$;
comment on function shardman.mend_shared() is 'rights, locks and triggers of shared tables on this node; returns what failed, which is recorded';

do $$
begin
    if not exists (select from pg_catalog.pg_policy where polrelid = 'shardman.shared_locks'::regclass) then
        create policy owners on shardman.shared_locks using (shardman.owns_shared(relation));
    end if;
end
$$;
