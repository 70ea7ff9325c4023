-- The application's triggers FOR EACH ROW on a sharded table. They are on its primaries' data tables and nowhere else: on the table or on a route
-- they would act where the statement is given, and once more where the row is written. So a row's triggers act once, on the
-- node that has the row, whichever way it comes; what is copied, moved, split or replicated meets none, for such tables are in no partition.
--
-- The definition of the table has them without the table's name, which may change:
--   row_triggers   {change, path, items: [{name, before, behind, type, enabled, comment}]}
--                  before, behind: what stands before and behind ON <table>, as PostgreSQL writes it. change: differs when DDL has changed
--                  any. path: the search_path of who made the last one
--
-- They come when a data table comes into its partition, and go when it leaves it. Plain DDL does to a stand-in what is then read from that
-- (96_stand_in.sql), and until the metadata know it is written down as constraints are (shardman.changed_constraints, with an empty name).
--
-- In a session of postgres_fdw's search_path is pg_catalog and TimeZone GMT, and a function that was written for the application's sessions
-- finds nothing by its name there. So before all others a trigger of ours gives such a session, for the rest of its transaction, the path, and the
-- node's own TimeZone.

-- No SET, which would take back what it does; so these names have no schema of ours in them.
create or replace function shardman.as_at_home() returns trigger
language plpgsql as $$
begin
    perform pg_catalog.set_config('search_path', tg_argv[0], true), pg_catalog.set_config('TimeZone', null, true);
    return case tg_op when 'DELETE' then old else new end;
end
$$;
comment on function shardman.as_at_home() is
    'before an application''s triggers, in a session of postgres_fdw''s: gives it the search_path for which they were written, and the TimeZone that the node''s own sessions have';

create or replace function shardman.described_row_triggers(rel oid, ours bool) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'name', g.tgname, 'type', g.tgtype, 'before', left(p.head, w.at - 1), 'behind', substr(p.head, w.at + length(w.on_)) || coalesce(p.condition || ' ', '') || p.tail,
               'enabled', g.tgenabled, 'comment', obj_description(g.oid, 'pg_trigger')) order by g.tgname), '[]')
      from pg_trigger g join pg_proc f on f.oid = g.tgfoid
      join pg_class c on c.oid = g.tgrelid join pg_namespace s on s.oid = c.relnamespace
     cross join lateral shardman.trigger_parts(pg_get_triggerdef(g.oid)) p
     -- The last: columns and the trigger itself may be called anything.
     cross join lateral (select o.on_, length(p.head) - length(o.on_) - strpos(reverse(p.head), reverse(o.on_)) + 2 as at
                           from format(' ON %I.%I ', s.nspname, c.relname) as o (on_)) w
     where g.tgrelid = rel and not g.tgisinternal and (f.pronamespace <> 'shardman'::regnamespace or ours and f.proname = 'as_at_home')
$$;
comment on function shardman.described_row_triggers(oid, bool) is
    'the application''s triggers on a table as a definition has them; ours: and the one that comes before them';

create or replace function shardman.row_triggers(items jsonb, path text) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('row_triggers', jsonb_build_object('change', md5(items::text), 'path', path, 'items', items))
$$;
comment on function shardman.row_triggers(jsonb, text) is 'what a definition has of triggers';

create or replace function shardman.described_triggers(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when d.items = '[]' then '{}'
                -- Who shards a table has no session in which they act: what any session of the database has, after the table's own schema.
                else shardman.row_triggers(d.items, (select quote_ident(n.nspname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = rel)
                                                    || coalesce(', ' || nullif((select x.reset_val from pg_settings x where x.name = 'search_path'), ''), '')) end
      from shardman.described_row_triggers(rel, false) as d (items)
$$;
comment on function shardman.described_triggers(oid) is 'of a plain table that is to be sharded: its triggers for the definition; an empty object without any';

create or replace function shardman.row_trigger_problems(rel oid) returns table (name text, what text, way_out text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.* from pg_trigger g join pg_proc f on f.oid = g.tgfoid and f.pronamespace <> 'shardman'::regnamespace
     cross join lateral (values
         (g.tgtype & 1 = 0, 'acts once for each statement, and a statement is several where its rows are on several nodes', 'Make it FOR EACH ROW'),
         (g.tgoldtable is not null or g.tgnewtable is not null, 'has all rows of its statement as a table, and they are on several nodes', 'Make it without REFERENCING'),
         (g.tgdeferrable, 'acts at the end of the transaction, and nodes that commit one after the other cannot take back what others have committed', 'Make it NOT DEFERRABLE'),
         (g.tgconstrrelid <> 0, 'names another table by FROM', 'Make it without FROM'),
         (g.tgenabled in ('A', 'R'), 'acts on what is replicated too', format('ALTER TABLE %s ENABLE TRIGGER %I', g.tgrelid::regclass, g.tgname)),
         (shardman.asks_session(g.tgqual::text), 'has a condition that depends on the session''s TimeZone or the like, which on another node is not the client''s',
          'Ask for that in its function, or write it so that it says the same everywhere, with AT TIME ZONE for example')) as v (is_so, what, way_out)
     cross join lateral (select g.tgname::text, v.what, v.way_out) as p (name, what, way_out)
     where g.tgrelid = rel and not g.tgisinternal and v.is_so order by 1
$$;
comment on function shardman.row_trigger_problems(oid) is 'the triggers of a table that a sharded one cannot have, why, and what to do';

create or replace function shardman.row_trigger_obstacles(rel oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.obstacle(format('the trigger %I %s', p.name, p.what), p.way_out || format(', or drop it: DROP TRIGGER %I ON %s', p.name, shardman.metadata_name(rel)))
      from shardman.row_trigger_problems(rel) p
$$;
comment on function shardman.row_trigger_obstacles(oid) is 'triggers that keep a table from being sharded';

create or replace function shardman.need_row_triggers(relation text, stand oid) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    problem record;
begin
    select * into problem from shardman.row_trigger_problems(stand) limit 1;
    if found then
        raise exception 'a sharded table as % cannot have the trigger %: it %', relation, quote_ident(problem.name), problem.what
            using errcode = 'feature_not_supported', hint = problem.way_out || '.';
    end if;
end
$$;
comment on function shardman.need_row_triggers(text, oid) is 'raises where a stand-in got a trigger that a sharded table cannot have';

create or replace function shardman.known_row_triggers(relation text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((select c.item from shardman.changed_constraints c where (c.relation, c.name) = (known_row_triggers.relation, '')),
                    (select t.definition -> 'row_triggers' from shardman.tables t where t.relation = known_row_triggers.relation))
$$;
comment on function shardman.known_row_triggers(text) is 'the triggers of a sharded table, by the metadata and what DDL has changed since; null without any';

create or replace function shardman.laid_row_triggers(known jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $$
    with found as (
        select bit_or((t ->> 'type')::int) as type from jsonb_array_elements(known -> 'items') t
    )
    select case when f.type is null then '[]' else jsonb_build_array(jsonb_build_object(
               'name', '!shardman_home', 'enabled', 'O', 'comment', null,
               'before', format('CREATE TRIGGER "!shardman_home" %s %s', case when f.type & 2 > 0 then 'BEFORE' else 'AFTER' end,
                                concat_ws(' OR ', case when f.type & 4 > 0 then 'INSERT' end, case when f.type & 8 > 0 then 'DELETE' end, case when f.type & 16 > 0 then 'UPDATE' end)),
               'behind', format('FOR EACH ROW WHEN ((current_setting(''search_path''::text) = ''pg_catalog''::text)) EXECUTE FUNCTION shardman.as_at_home(%L)', known ->> 'path')))
           || (select jsonb_agg(t - 'type' order by t ->> 'name' collate "C") from jsonb_array_elements(known -> 'items') t) end
      from found f
$$;
comment on function shardman.laid_row_triggers(jsonb) is 'the triggers that each data table is to have: ours first, and those of the table';

create or replace function shardman.own_row_triggers(data oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(t - 'type' order by t ->> 'name' collate "C"), '[]') from jsonb_array_elements(shardman.described_row_triggers(data, true)) t
$$;
comment on function shardman.own_row_triggers(oid) is 'the triggers that a data table has, to be compared with shardman.laid_row_triggers';

create or replace function shardman.trigger_text(item jsonb, tab text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select format('%s ON %s %s', item ->> 'before', tab, item ->> 'behind')
$$;
comment on function shardman.trigger_text(jsonb, text) is 'the statement that makes a trigger of a definition on a table';

create or replace function shardman.lay_row_triggers(data oid, wanted jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    have constant jsonb := shardman.own_row_triggers(data);
    item jsonb;
begin
    for item in select h from jsonb_array_elements(have) h where not wanted @> jsonb_build_array(h) loop
        execute format('drop trigger %I on %s', item ->> 'name', data::regclass);
    end loop;
    for item in select w from jsonb_array_elements(wanted) w where not have @> jsonb_build_array(w) loop
        -- A condition is read by whoever makes it.
        perform shardman.need_trusted_types(item);
        perform shardman.lay_trigger(data::regclass::text, (item ->> 'name')::name, shardman.trigger_text(item, data::regclass::text),
                                     (item ->> 'enabled')::"char", item ->> 'comment');
    end loop;
end
$$;
comment on function shardman.lay_row_triggers(oid, jsonb) is 'lets a table have these of the application''s triggers, and no others; wanted: of shardman.laid_row_triggers';

create or replace function shardman.attached_row_triggers(part_name text, definition jsonb default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data   constant oid := shardman.find_relation(shardman.data_table(part_name));
    known  constant jsonb := coalesce(definition -> 'row_triggers', shardman.known_row_triggers((shardman.table_definition(part_name)) ->> 'relation'));
    wanted constant jsonb := shardman.laid_row_triggers(known);
begin
    if wanted <> '[]' or exists (select from pg_trigger g where g.tgrelid = data and not g.tgisinternal) then
        perform shardman.lay_row_triggers(data, wanted);
    end if;
end
$$;
comment on function shardman.attached_row_triggers(text, jsonb) is
    'for a data table that has just come into its partition: its triggers. definition: where the metadata do not have it yet';

create or replace function shardman.row_trigger_state() returns table (relation text, data oid, part_name text, wanted jsonb, problem text)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with known as materialized (
        select t.relation, shardman.laid_row_triggers(shardman.known_row_triggers(t.relation)) as wanted
          from shardman.tables t where not shardman.is_put_away(t.relation)
    ), here as materialized (
        select c.oid, k.relation, p.part_name, k.wanted
          from known k join shardman.partitions p on p.relation = k.relation and p.prv is null and p.owner = shardman.my_id()
          join pg_class c on c.oid = shardman.find_relation(shardman.data_table(p.part_name)) and c.relispartition
         where k.wanted <> '[]'
    )
    select h.relation, h.oid, h.part_name, h.wanted, 'its data table has not the triggers of the table'
      from here h where shardman.own_row_triggers(h.oid) <> h.wanted
    union all
    -- While a partition comes here the metadata may say that it is elsewhere, and have no table that is just being made.
    select null, s.data, s.name, '[]', 'it has triggers that its table has not, or is out of use'
      from (select distinct g.tgrelid as data, c.relispartition, shardman.metadata_name(c.oid) as name
              from pg_trigger g join pg_proc f on f.oid = g.tgfoid and (f.pronamespace <> 'shardman'::regnamespace or f.proname = 'as_at_home')
              join pg_class c on c.oid = g.tgrelid and c.relkind = 'r'
              join pg_constraint o on o.conrelid = c.oid and o.conname = 'shardman_partition' and o.contype = 'c'
             where not g.tgisinternal) s
     where not s.relispartition or exists (select from known k where k.relation = shardman.part_relation(s.name) and k.wanted = '[]')
$$;
comment on function shardman.row_trigger_state() is
    'this node: data tables in use whose triggers are not those of the table, and those out of use that have some (relation is null)';

create or replace function shardman.mend_row_triggers(relation_ text) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    state   record;
    failed  text[] := '{}';
    problem text;
begin
    for state in select s.* from shardman.row_trigger_state() s where relation_ is null or s.relation = relation_ loop
        begin
            perform shardman.lay_row_triggers(state.data, state.wanted);
        exception
            when lock_not_available or deadlock_detected then
                null;  -- The next visit tries again.
            when others then
                get stacked diagnostics problem = message_text;
                perform shardman.note_problem(state.part_name, problem);
                failed := failed || state.part_name;
        end;
    end loop;
    return failed;
end
$$;
comment on function shardman.mend_row_triggers(text) is 'gives data tables the triggers that they lack, and takes away what they are not to have; returns those that failed';

create or replace function shardman.redefined_row_triggers(t shardman.tables, data oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when known is null or not (select c.relispartition from pg_class c where c.oid = data) then coalesce(jsonb_build_object('row_triggers', known), '{}')
                -- Columns and functions may be called otherwise by now, or have taken triggers along.
                else jsonb_build_object('row_triggers', known || jsonb_build_object('items', (
                         select coalesce(jsonb_agg(live order by live ->> 'name'), '[]') from jsonb_array_elements(shardman.described_row_triggers(data, false)) live
                          where exists (select from jsonb_array_elements(known -> 'items') k where k -> 'name' = live -> 'name')))) end
      from shardman.known_row_triggers(t.relation) as k (known)
$$;
comment on function shardman.redefined_row_triggers(shardman.tables, oid) is 'the triggers of a definition as they are now; data: a data table of this node';

create or replace function shardman.trigger_function(item jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select substring(item ->> 'behind' from '^.* EXECUTE FUNCTION ([^(]+)[(]') || '()'
$$;
comment on function shardman.trigger_function(jsonb) is 'the function that a trigger of a definition calls';

create or replace function shardman.without_functions() returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select distinct t.relation from shardman.tables t cross join jsonb_array_elements(t.definition -> 'row_triggers' -> 'items') i
     where to_regprocedure(shardman.trigger_function(i)) is null
$$;
comment on function shardman.without_functions() is 'the sharded tables with triggers whose functions are not there by the names that the metadata have: DROP ... CASCADE has taken both, or they are called otherwise';

create or replace function shardman.stand_in_triggers(relation text, stand oid) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    known constant jsonb := shardman.known_row_triggers(relation);
    items constant jsonb := shardman.described_row_triggers(stand, false);
    path  text := known ->> 'path';
begin
    if items = coalesce(known -> 'items', '[]') then
        return null;
    end if;
    perform shardman.need_row_triggers(relation, stand);
    if path is null or exists (select from jsonb_array_elements(items) i
                                where not exists (select from jsonb_array_elements(known -> 'items') k where k ->> 'before' = i ->> 'before')) then
        path := current_setting('shardman.ddl_path', true);
    end if;
    return shardman.row_triggers(items, path) -> 'row_triggers';
end
$$;
comment on function shardman.stand_in_triggers(text, oid) is 'the triggers that a table is to have by what a statement has done to its stand-in; null where it did nothing to them';

create or replace function shardman.change_row_triggers(relation text, parent oid, known jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    insert into shardman.changed_constraints as c (relation, name, kind, item) values (relation, '', 'row_triggers', known)
        on conflict on constraint changed_constraints_pkey do update set item = excluded.item;
    perform shardman.lay_row_triggers(d.data, shardman.laid_row_triggers(known)) from shardman.data_tables_here(parent) d;
end
$$;
comment on function shardman.change_row_triggers(text, oid, jsonb) is 'within DDL: the data tables on this node have these triggers from now on, and the metadata will';

create or replace function shardman.rest_row_triggers(relation text, rest bool) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(relation);
    perform shardman.lay_row_triggers(d.data, case when rest then '[]' else shardman.laid_row_triggers(shardman.known_row_triggers(relation)) end)
       from shardman.data_tables_here(shardman.find_relation(relation)) d;
end
$$;
comment on function shardman.rest_row_triggers(text, bool) is 'within DDL, for the owner of a sharded table: takes its triggers off the data tables on this node, or gives them back';

create or replace function shardman.plain_row_triggers(definition jsonb) returns setof text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select line
      from jsonb_array_elements(definition -> 'row_triggers' -> 'items') with ordinality as u (t, i)
     cross join shardman.sql_name(definition ->> 'relation') as me (name)
     cross join lateral (
         values (1, shardman.trigger_text(t, me.name)),
                (2, case when t ->> 'enabled' = 'D' then format('alter table %s disable trigger %I', me.name, t ->> 'name') end),
                (3, case when t ->> 'comment' is not null then format('comment on trigger %I on %s is %L', t ->> 'name', me.name, t ->> 'comment') end)
     ) as lines (n, line)
     where line is not null order by i, n
$$;
comment on function shardman.plain_row_triggers(jsonb) is 'the statements that give a plain table the triggers of the sharded one';
