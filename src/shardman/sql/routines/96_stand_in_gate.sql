-- Which statements about a sharded table are done to a stand-in (96_stand_in.sql), and what the gate (95_gate.sql) holds for those, besides the
-- table itself: what a new foreign key refers to, and what one did that is dropped. On a node without a copy of a shared table an empty one is
-- made for the moment, so that the stand-in's foreign key has something to refer to.

create or replace function shardman.renamed_names(query text) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    select array[parse_ident(m[1]), parse_ident(m[2])]
      from regexp_match(shardman.one_statement(query), replace('\mrename\s+constraint\s+(WORD)\s+to\s+(WORD)$', 'WORD', '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'), 'i') as m
$$;
comment on function shardman.renamed_names(text) is 'the old and the new name in an ALTER TABLE ... RENAME CONSTRAINT';

create or replace function shardman.renames_key(relation text, query text, tag text, path text) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    -- Or has given it: a node that has the change repeats it on one that lacks it.
    select tag in ('ALTER TABLE', 'ALTER INDEX')
       and exists (select from pg_constraint o
                    where o.conrelid = shardman.find_relation(relation) and o.contype in ('p', 'u')
                      and (o.conname = any (shardman.renamed_names(query))
                           or (o.conindid = shardman.ddl_object(query, tag, path) or shardman.ddl_object(query, tag, path) is null
                                   and shardman.one_statement(query) ~* format('\mrename\s+to\s+("%s"|%1$s)$', regexp_replace(replace(o.conname, '"', '""'), '(\W)', '\\\1', 'g')))
                              and shardman.plain_words(query) ~* '\mrename\s+to\M'))
$$;
comment on function shardman.renames_key(text, text, text, text) is 'whether an ALTER gives one of the table''s keys another name';

create or replace function shardman.touches_unique(query text, tag text, path text) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select tag = 'CREATE INDEX' and shardman.plain_words(query) ~* '^create\s+unique\M'
        or (tag = 'DROP INDEX' or tag in ('ALTER TABLE', 'ALTER INDEX') and shardman.plain_words(query) ~* '\mrename\s+to\M')
           -- Where a change is repeated it is gone on the node that has the change, or called otherwise.
           and (exists (select from pg_index i where i.indexrelid = shardman.ddl_object(query, tag, path) and i.indisunique)
                or tag <> 'ALTER TABLE' and shardman.ddl_object(query, tag, path) is null)
$$;
comment on function shardman.touches_unique(text, text, text) is 'whether a statement about a sharded table makes, drops or renames a unique index';

create or replace function shardman.renames_reference(relation text, query text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.known_references(relation) f where f ->> 'name' = any (shardman.renamed_names(query)))
$$;
comment on function shardman.renames_reference(text, text) is 'whether an ALTER gives one of the table''s foreign keys another name, or has given it';

create or replace function shardman.is_about_triggers(query text, tag text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(tag like '% TRIGGER' or tag = 'COMMENT' and shardman.plain_words(query) ~* '^comment\s+on\s+trigger\M'
                    or tag = 'ALTER TABLE' and shardman.plain_words(query) ~* '\m(enable|disable)\s+((always|replica)\s+)?trigger\M', false)
$$;
comment on function shardman.is_about_triggers(text, text) is 'whether a statement makes, changes or drops triggers of a table';

create or replace function shardman.alters_identity(query text, tag text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(tag = 'ALTER TABLE' and shardman.plain_words(query) ~* '\malter\s+(column\s+)?[^\W\d][\w$]*\s+(set\s+generated|drop\s+identity)\M', false)
$$;
comment on function shardman.alters_identity(text, text) is 'whether a statement is about identity columns as if the table had some';

create or replace function shardman.needs_stand_in(relation text, query text, tag text, path text) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.renames_key(relation, query, tag, path) or shardman.touches_unique(query, tag, path) or shardman.is_about_triggers(query, tag) or shardman.alters_identity(query, tag) or coalesce(tag = 'ALTER TABLE'
       and (shardman.plain_words(query) ~* '\madd\M.*\m(primary\s+key|unique|foreign\s+key|references|serial|bigserial|smallserial|identity)\M'
            or shardman.one_statement(query) ~* '\madd\M.*\mdefault\s+(?!-?[0-9]|''|true\M|false\M|null\M)'
            or shardman.drops_key(relation, query) or shardman.touches_reference(relation, query) or shardman.renames_reference(relation, query)), false)
$$;
comment on function shardman.needs_stand_in(text, text, text, text) is 'whether a statement changes a sharded table by way of a stand-in';

create or replace function shardman.statement_refers_to(query text, path text) returns text[]
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    name_  constant text := '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)';
    names  constant text[] := array(select m[1] from regexp_matches(regexp_replace(shardman.one_statement(query), '''([^'']|'''')*''', '''''', 'g'),
                                                                    '\mreferences\s+(' || name_ || '(?:\s*\.\s*' || name_ || ')?)', 'gi') m);
    found_ oid[];
begin
    perform set_config('search_path', path, true);
    found_ := array(select pg_catalog.to_regclass(n)::pg_catalog.oid from pg_catalog.unnest(names) n);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    return array(select distinct shardman.metadata_name(o) from unnest(found_) o where o is not null order by 1);
end
$$;
comment on function shardman.statement_refers_to(text, text) is 'the tables to which the foreign keys refer that a statement makes; path: the search_path by which names are read';

create or replace function shardman.gate_modes(relation text, tag text, query text, path text) returns text[]
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select case when shardman.tunes(query, tag) then string_to_array(shardman.ddl_lock_modes(tag, query), ',') || 'tuning'::text
                when not shardman.needs_stand_in(relation, query, tag, path) then string_to_array(nullif(shardman.ddl_lock_modes(tag, query), ''), ',')
                     || array(select 'numbers ' || c from shardman.dropped_numbers(relation, query) c where tag = 'ALTER TABLE')
                -- To rename an index takes no such locks; the stand-in does.
                else array_remove(string_to_array(shardman.ddl_lock_modes('ALTER TABLE', query), ','), 'keys')
                     || array(select 'refers ' || r from unnest(shardman.statement_refers_to(query, path)) r)
                     || array(select 'beside ' || r from unnest(shardman.refers_beside(relation, query, path)) r)
                     || array(select distinct 'referred ' || (f ->> 'to')
                                from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f
                               where t.relation = gate_modes.relation and shardman.names_constraint(query, 'drop', f ->> 'name'))
                     || 'stand-in'::text || case when shardman.alters_identity(query, tag) then array['identities'] else '{}' end end
$$;
comment on function shardman.gate_modes(text, text, text, text) is
    'shardman.ddl_lock_modes for a statement about a sharded table. refers: and a table to which it is to refer; beside: one that is sharded; '
    'referred: or did; numbers: what copies have of a column''s sequence; stand-in, tuning: the end of the gate; identities: behind it';

create or replace function shardman.make_stub(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    def  constant jsonb := (select s.definition from shardman.shared_tables s where s.relation = make_stub.relation);
    name constant text := shardman.sql_name(relation);
begin
    perform set_config('shardman.ddl_busy', 'on', true);
    execute format('create schema if not exists %I', (shardman.relation_parts(relation))[1]);
    execute format('create table %s (%s)', name,
                   (select string_agg(concat_ws(' ', quote_ident(c ->> 'name'), c ->> 'type', 'collate ' || (c ->> 'collation')), ', ' order by n)
                      from jsonb_array_elements(def -> 'columns') with ordinality as u (c, n)));
    execute coalesce((select string_agg(format('alter table %s add %s', name, k ->> 'sql'), '; ') from jsonb_array_elements(def -> 'keys') k), 'select');
    execute format('grant references on %s to public', name);
    execute format('comment on table %s is %L', name, shardman.behind());
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.make_stub(text) is
    'on a node without copies of shared tables, within a statement: an empty table to which the stand-in''s foreign key can refer';

create or replace function shardman.drop_stubs() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    stub oid;
begin
    for stub in
        select c.oid from shardman.shared_tables s join pg_class c on c.oid = shardman.find_relation(s.relation)
         where c.relowner = shardman.our_role() and obj_description(c.oid, 'pg_class') = shardman.behind()
           and not exists (select from shardman.shared_copies x where x.relation = s.relation and x.node = shardman.my_id())
    loop
        execute format('drop table %s', stub::regclass);
    end loop;
end
$$;
comment on function shardman.drop_stubs() is 'drops what shardman.make_stub has made in this session';

create or replace function shardman.hold_named(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    who    constant name := shardman.caller();
    target constant oid := shardman.find_relation(relation);
begin
    if exists (select from shardman.tables t where t.relation = hold_named.relation) then
        return;
    elsif not exists (select from shardman.shared_tables s where s.relation = hold_named.relation) then
        raise exception '% has been shared since this transaction began on node %', relation, shardman.my_id()
            using errcode = 'object_not_in_prerequisite_state', hint = 'Repeat the transaction.';
    elsif target is null then
        perform shardman.make_stub(relation);
        return;
    elsif not has_any_column_privilege(who, target, 'references') then
        perform shardman.need_references_right(relation, null);
    end if;
    execute format('lock table only %s in share row exclusive mode', target::regclass);
end
$$;
comment on function shardman.hold_named(text) is
    'a part of the gate: locks the copy of a shared table as making a foreign key to it does, for who may refer to it';

create or replace function shardman.hold_referred_to(relation text, referred text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    target constant oid := shardman.find_relation(referred);
begin
    perform shardman.need_owner(relation);
    perform shardman.hold_data_tables(relation, referred);
    if target is not null
       and exists (select from shardman.shared_tables s where s.relation = referred)
       and exists (select from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f
                    where t.relation = hold_referred_to.relation and f ->> 'to' = referred) then
        execute format('lock table only %s in access exclusive mode', target::regclass);
    end if;
end
$$;
comment on function shardman.hold_referred_to(text, text) is
    'the same as dropping one does, for the owner of a table that refers to it: nobody else locks what is not his';
