-- DDL of a shared table on the other nodes: the statement is sent there through the doors (96_shared_ddl.sql), and again, later, to a node that lacks it.
--
-- Rows that a statement writes anew get values that each node would compute for itself (a default of now(), a USING clause): behind
-- the statement those of the node where it was sent are sent to all others.

create or replace function shardman.on_shared_spread() returns event_trigger
language plpgsql as $$
begin
    if pg_catalog.length(pg_catalog.current_setting('shardman.ddl_shared', true)) operator(pg_catalog.>) 0
       and pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.<>) 'on' then
        perform shardman.spread_shared_ddl(shardman.shared_statement(tg_tag), tg_tag);
    end if;
end
$$;
comment on function shardman.on_shared_spread() is 'after DDL on a shared table, as the caller: the same on the other nodes';

create or replace function shardman.shared_statement(tag text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when tag = 'DROP TABLE' then shardman.drop_text(shardman.ddl_shared(), shardman.statement_now()) else shardman.statement_now() end
$$;
comment on function shardman.shared_statement(text) is 'DDL of shared tables as other nodes get it: of DROP TABLE, which may name others, what is about shared ones';

create or replace function shardman.spread_shared_ddl(query text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tables constant text[] := shardman.ddl_shared();
    nodes constant int[] := coalesce(string_to_array(nullif(current_setting('shardman.ddl_nodes', true), ''), ',')::int[], '{}');
    ranges constant jsonb := case when tag = 'ALTER TABLE' then nullif(current_setting('shardman.ddl_ranges', true), '')::jsonb end;
    node  int;
    rows_ text[];
begin
    if tag <> 'DROP TABLE' then
        perform shardman.need_no_moment(tables[1], query);
        perform shardman.ask_same_words(tables[1], nodes);
    end if;
    foreach node in array nodes loop
        perform shardman.through_door(node, format('select set_config(''shardman.ddl_ranges'', %L, true)', ranges), '10s') where ranges is not null;
        -- The note first: see shardman.spread_ddl.
        perform shardman.through_door(node, format('select shardman.note_change(%L)', shardman.change_sent(query, tag, tables[1], tables)), '10s');
        if query ~* '\mset\s+constraints\M' then
            perform shardman.through_door(node, 'set constraints all immediate', '10s');
        end if;
        perform shardman.send_on(node, query);
    end loop;
    if current_setting('shardman.ddl_rewritten', true) = 'on' and tag = 'ALTER TABLE' and shardman.plain_words(query) ~* '\mprimary\s+key\M' then
        raise exception 'each copy of % would make values of its own for its primary key', tables[1]
            using errcode = 'feature_not_supported', hint = 'Add the column first, then drop the key, and add the other one: three statements, in one transaction.';
    elsif current_setting('shardman.ddl_rewritten', true) = 'on' then
        perform shardman.through_door(n, s, '10s') from unnest(nodes) n, shardman.numbering(tables[1], ranges, false) s;
        for rows_ in execute format('select array_agg(x.r) from (select concat(t.*) as r, (row_number() over () - 1) / 1000 as n from only %s t) x group by x.n',
                                    shardman.name_here((shardman.ddl_shared())[1])) loop
            foreach node in array nodes loop
                perform shardman.through_door(node, format('insert into shardman.shared_inbox values (%L, ''update'', %L, %L)',
                    (shardman.ddl_shared())[1], (shardman.shared_nodes((shardman.ddl_shared())[1])).nodes, rows_), '10s');
            end loop;
        end loop;
        perform shardman.through_door(n, s, '10s') from unnest(nodes) n, shardman.numbering(tables[1], ranges, true) s;
    end if;
end
$$;
comment on function shardman.spread_shared_ddl(text, text) is 'sends a statement to all other copies, and the rows that it has written anew';

create or replace function shardman.repeat_shared_through(c shardman.schema_changes, node int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    locks constant text := shardman.ddl_lock_modes(c.tag, c.statement);
begin
    perform shardman.through_door(node, format('select shardman.note_change(%L)', to_jsonb(c)), '500ms');
    if locks <> '' and c.tag <> 'DROP TABLE' and c.tag not like '% STATISTICS' then
        perform shardman.through_door(node, format('lock table only %s in access exclusive mode', shardman.sql_name(c.target)), '5s');
    end if;
    if locks like '%,keys' then
        perform shardman.through_door(node, format('select shardman.loosen_shared(%L)', c.target), '500ms');
    end if;
    if shardman.drops_from(c.statement) then
        perform shardman.through_door(node, format('select shardman.loosen_key(%L)', c.target), '500ms');
    end if;
    if c.tag = 'ALTER TABLE' then
        perform shardman.through_door(node, format('select set_config(''shardman.ddl_ranges'', %L, true)', shardman.ranges_here(c.target)), '500ms');
    end if;
    perform shardman.through_door(node, shardman.read_alike(c.statement, c.words::text), '5s');
end
$$;
comment on function shardman.repeat_shared_through(shardman.schema_changes, int) is
    'as who sent a change of a shared table: the same on a node that lacks it, with the note that it has it. The shardlord keeps writers away meanwhile';

create or replace function shardman.changes_of(relation text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(to_jsonb(c) order by c.nr), '[]') from shardman.schema_changes c where changes_of.relation = any (c.tables)
$$;
comment on function shardman.changes_of(text) is 'the changes of a shared table that this node has and keeps until all have them';

create or replace function shardman.has_changes(changes jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    insert into shardman.schema_changes (id, sender, statement, path, words, tag, target, tables, nodes, made_at, settled)
    select c.id, c.sender, c.statement, c.path, c.words, c.tag, c.target, c.tables, c.nodes, c.made_at, c.settled
      from jsonb_populate_recordset(null::shardman.schema_changes, changes) as c order by c.nr
        on conflict do nothing
$$;
comment on function shardman.has_changes(jsonb) is 'this node has a copy made like that of a node with these changes: they are not to be repeated here';
