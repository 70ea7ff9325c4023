-- The application's own triggers on a shared table. They act where a statement is given, with what they do to the row or to other
-- tables, and what came of it is sent to the other copies: there they must not act once more. So on every node the condition of each
-- is shardman.fires_here(), and what it was before. Plain DDL makes, changes and drops them on all nodes (96_shared_ddl.sql); each node puts
-- the condition in front when the statement has been done there.

create or replace function shardman.fires_here() returns bool
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- Cheap where nothing arrives: it is asked for each row.
    return current_setting('shardman.shared', true) is distinct from 'arrives' or not shardman.is_arriving();
end
$$;
comment on function shardman.fires_here() is 'whether what is written to a shared table is written here, and does not come from another node';

create or replace function shardman.trigger_parts(def text, out head text, out condition text, out tail text)
language sql immutable set search_path = pg_catalog, pg_temp as $$
    -- Names and texts in quotes may contain any words.
    with masked (words) as (
        select string_agg(case when m[1] ~ '^["'']' then repeat('x', length(m[1])) else m[1] end, '' order by n)
          from regexp_matches(def, $r$("(?:[^"]|"")*"|'(?:[^']|'')*'|[^"']+)$r$, 'g') with ordinality as u (m, n)
    ), at (head, tail) as (
        select length((regexp_match(words, '^(.*? FOR EACH (?:ROW|STATEMENT) )'))[1]), length((regexp_match(words, '^(.*) EXECUTE FUNCTION '))[1]) from masked
    )
    select left(def, a.head), nullif(substr(def, a.head + 1, greatest(a.tail - a.head, 0)), ''), ltrim(substr(def, greatest(a.head, a.tail + 1) + 1)) from at a
$$;
comment on function shardman.trigger_parts(text) is 'the definition of a trigger, as pg_get_triggerdef writes it, before, in and behind its condition (WHEN ...)';

create or replace function shardman.guarded_trigger(def text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select regexp_replace(p.head, '^CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER')
           || 'WHEN (shardman.fires_here()' || coalesce(' AND ' || substr(p.condition, 6), '') || ') ' || p.tail
      from shardman.trigger_parts(def) p
$$;
comment on function shardman.guarded_trigger(text) is 'a trigger that acts only where a statement is given';

create or replace function shardman.plain_trigger(def text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when p.condition = 'WHEN (shardman.fires_here())' then p.head || p.tail
                when starts_with(p.condition, 'WHEN ((shardman.fires_here() AND ')
                     then p.head || 'WHEN (' || substr(p.condition, 34, length(p.condition) - 35) || ') ' || p.tail
                else def end
      from shardman.trigger_parts(def) p
$$;
comment on function shardman.plain_trigger(text) is 'a trigger as it was before shardman.guarded_trigger';

create or replace function shardman.own_triggers(rel oid) returns table (oid oid, name name, definition text, plain text, enabled "char", comment text)
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select g.oid, g.tgname, d.def, shardman.plain_trigger(d.def), g.tgenabled, obj_description(g.oid, 'pg_trigger')
      from pg_trigger g cross join lateral (select pg_get_triggerdef(g.oid) as def offset 0) d
     where g.tgrelid = rel and not g.tgisinternal
       and g.tgfoid is distinct from (select shardman.find_function(shardman.shared_function(shardman.metadata_name(rel))))
       -- The function may bear the table's former name still.
       and g.tgfoid is distinct from (select x.tgfoid from pg_trigger x where x.tgrelid = rel and x.tgname = 'A_shardman_lock')
       and not exists (select from pg_proc f where f.oid = g.tgfoid and f.pronamespace = 'shardman'::regnamespace)
$$;
comment on function shardman.own_triggers(oid) is 'the application''s triggers on a table, as they are and as they are on a plain one';

create or replace function shardman.need_own_trigger(relation text, query text, tag text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    word  constant text := '("(?:[^"]|"")+"|[^\W\d][\w$]*)';
    named constant text := (regexp_match(shardman.one_statement(query), '\mtrigger\s+(?:if\s+exists\s+)?' || word, 'i'))[1];
    name_ constant text := (parse_ident(named))[1];
begin
    if tag like '% TRIGGER' and exists (select from shardman.shared_trigger_forms() f where f.name = name_) then
        raise exception 'the trigger % of % is the cluster''s: it sends what is written to all copies', quote_ident(name_), relation
            using errcode = 'feature_not_supported', hint = 'Leave it as it is, and call yours otherwise.';
    end if;
end
$$;
comment on function shardman.need_own_trigger(text, text, text) is 'raises where DDL of triggers names one of those that a shared table has from us';

create or replace function shardman.describe_triggers(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('name', t.name, 'sql', t.plain, 'enabled', t.enabled, 'comment', t.comment) order by t.name), '[]')
      from shardman.own_triggers(rel) t
$$;

create or replace function shardman.trigger_obstacles(rel oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.obstacle(format('the trigger %I of %s acts on what is replicated too', t.name, shardman.metadata_name(rel)),
                             format('ALTER TABLE %s ENABLE TRIGGER %I', shardman.metadata_name(rel), t.name))
      from shardman.own_triggers(rel) t where t.enabled in ('A', 'R')
$$;
comment on function shardman.trigger_obstacles(oid) is 'triggers that keep a table from being shared, and the way out';

create or replace function shardman.lay_trigger(tab text, name name, definition text, enabled "char", comment text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if definition ~ '^CREATE CONSTRAINT' and exists (select from pg_trigger g where g.tgrelid = tab::regclass and g.tgname = lay_trigger.name) then
        -- PostgreSQL does not replace those.
        execute format('drop trigger %I on %s', name, tab);
    end if;
    execute definition;
    if enabled = 'D' then
        execute format('alter table %s disable trigger %I', tab, name);
    end if;
    if comment is not null then
        execute format('comment on trigger %I on %s is %L', name, tab, comment);
    end if;
end
$$;
comment on function shardman.lay_trigger(text, name, text, "char", text) is 'makes a trigger of a table, or replaces it';

create or replace function shardman.make_own_triggers(definition jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.lay_trigger(shardman.sql_name(definition ->> 'relation'), (t ->> 'name')::name, shardman.guarded_trigger(t ->> 'sql'),
                                (t ->> 'enabled')::"char", t ->> 'comment')
      from jsonb_array_elements(definition -> 'triggers') t
$$;
comment on function shardman.make_own_triggers(jsonb) is 'gives the copy of a shared table the application''s triggers, before it has rows';

create or replace function shardman.guard_triggers(rel oid) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.lay_trigger(rel::regclass::text, t.name, shardman.guarded_trigger(t.definition), t.enabled, t.comment)
      from shardman.own_triggers(rel) t where t.definition = t.plain
$$;
comment on function shardman.guard_triggers(oid) is 'lets the application''s triggers act only where a statement is given';

create or replace function shardman.free_triggers(rel oid) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.lay_trigger(rel::regclass::text, t.name, regexp_replace(t.plain, '^CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER'), t.enabled, t.comment)
      from shardman.own_triggers(rel) t where t.definition <> t.plain
$$;
comment on function shardman.free_triggers(oid) is 'gives the application''s triggers back the conditions that they had before the table was shared';
