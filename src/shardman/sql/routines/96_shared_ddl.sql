-- DDL of a shared table: as with that of a sharded one (95_ddl.sql), the statement's text is run on each node that has a copy, as the
-- caller and in his transaction. Here: which tables it is about, whether it can be done at all, and the doors to the other nodes.
--
-- Then the gate closes (96_shared_gate.sql), PostgreSQL does the statement here, and it is sent to the others (96_shared_spread.sql).
--
-- What cannot be done on all copies is refused when it has been done on this one and is there to look at: a table that could not have
-- been shared as it is then (96_shared_end.sql).

create or replace function shardman.shared_function_here(relation text) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(shardman.find_function(shardman.shared_function(relation)),
                    (select shardman.find_function(shardman.shared_function(s.definition ->> 'former')) from shardman.shared_tables s
                      where s.relation = shared_function_here.relation and not exists (select from shardman.shared_tables o where o.relation = s.definition ->> 'former')))
$$;
comment on function shardman.shared_function_here(text) is 'the trigger function of a shared table, which may bear the table''s former name still';

create or replace function shardman.shared_name(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relation from shardman.shared_copies c join shardman.local l on l.node_id = c.node and not l.leaving
     -- Also one that was just renamed.
     where c.relation = shardman.metadata_name(rel) and rel = shardman.find_relation(c.relation)
        or exists (select from pg_trigger g where g.tgrelid = rel and g.tgname = 'A_shardman_lock'
                      and g.tgfoid = shardman.shared_function_here(c.relation))
$$;
comment on function shardman.shared_name(oid) is 'the shared table of which a relation of this node is the copy; null when it is none';

create or replace function shardman.refuse_shared_ddl(relation text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% is a shared table, and this would change its copy on this node only', relation
        using errcode = 'feature_not_supported',
              hint = format('Send the statement by itself, or with nothing but DDL in one query, and not from within a function or DO. What a DROP ... CASCADE would take from it, take from it first. Rules and policies: '
                            'make it a plain table with shardman.unshare_table(%L, ...) first.', relation);
end
$$;
comment on function shardman.refuse_shared_ddl(text) is 'raises what DDL of a shared table gets that is not sent to all copies';

create or replace function shardman.listed_relations(query text, pattern text, path text) returns oid[]
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    name_  constant text := '(?:(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[^\W\d][\w$]*))?)';
    list   constant text := (regexp_match(shardman.one_statement(query), replace(pattern, 'LIST', format('(%1$s(?:\s*,\s*%1$s)*)', name_)), 'i'))[1];
    names  constant text[] := array(select m[1] from regexp_matches(list, '(' || name_ || ')', 'g') as m);
    found_ oid[];
begin
    perform set_config('search_path', path, true);
    found_ := array(select pg_catalog.to_regclass(n)::pg_catalog.oid from pg_catalog.unnest(names) n);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    return array_remove(found_, null);
end
$$;
comment on function shardman.listed_relations(text, text, text) is
    'the relations in a list of relations that a statement has where LIST stands in the pattern; path: the search_path by which they are read';

create or replace function shardman.ddl_relations(query text, tag text, path text) returns oid[]
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select case when tag in ('GRANT', 'REVOKE') then shardman.listed_relations(query, '^(?:grant|revoke)\s.*\son\s+(?:table\s+)?LIST\s+(?:to|from)\s', path)
                when tag = 'DROP TABLE' then shardman.listed_relations(query, '^drop\s+table\s+(?:if\s+exists\s+)?LIST\s*(?:cascade|restrict)?$', path)
                else array[shardman.ddl_relation(query, tag, path)] end
$$;
comment on function shardman.ddl_relations(text, text, text) is 'the relations that a statement of a kind is about; path: the search_path by which its names are read';

create or replace function shardman.await_references(tables text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- What was dropped a moment ago the metadata still have. What this node has itself need not be waited for.
    while current_setting('transaction_isolation') = 'read committed' and clock_timestamp() < statement_timestamp() + interval '5 s'
      and exists (select from unnest(tables) t where shardman.references_elsewhere(t) <> '{}')
      and not exists (select from unnest(tables) t join pg_constraint o on o.confrelid = shardman.find_relation(t) and o.contype = 'f'
                        join pg_class c on c.oid = o.conrelid and c.relispartition) loop
        perform pg_sleep(0.05);
    end loop;
end
$$;
comment on function shardman.await_references(text[]) is
    'before shared tables are dropped: waits a moment for the metadata of sharded tables that refer to them, where it seems that they do no more';

create or replace function shardman.need_possible_shared(tables text[], query text, tag text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    words constant text := shardman.plain_words(query);
    other text;
begin
    perform shardman.need_numbers_kept(tables[1], query, tag);
    perform shardman.need_own_trigger(tables[1], query, tag);
    if tag = 'ALTER TABLE' and words ~* '\mset\s+unlogged$' then
        raise exception 'a shared table cannot be unlogged: after a crash its node would have no rows' using errcode = 'feature_not_supported',
            hint = 'Leave it logged; or make it a plain table, with shardman.unshare_table.';
    elsif words ~* '\mconcurrently\M' then
        raise exception 'an index of a shared table is built or dropped on all nodes in one transaction, which CONCURRENTLY cannot be'
            using errcode = 'feature_not_supported', hint = 'Leave CONCURRENTLY out; the table''s users wait meanwhile.';
    elsif shardman.renames_by_index(query, tag, path) then
        perform shardman.refuse_index_name(tables[1]);
    elsif tag = 'DROP TABLE' then
        perform shardman.await_references(tables);
        select r into other from unnest(tables) t cross join unnest(shardman.references_elsewhere(t)) r limit 1;
        if other is not null then
            raise exception 'foreign keys of the sharded table % refer to %', other, array_to_string(tables, ', ')
                using errcode = 'dependent_objects_still_exist', hint = format('Drop %s first: select shardman.drop_table(%L).', other, other);
        end if;
    end if;
end
$$;
comment on function shardman.need_possible_shared(text[], text, text, text) is 'raises where a change of shared tables cannot be made at all';

create or replace function shardman.start_shared_ddl(query text, tag text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    rels   constant oid[] := shardman.ddl_relations(query, tag, path);
    tables text[];
    nodes  int[];
begin
    perform shardman.await_name(r) from unnest(rels) r;
    perform shardman.await_sharing(rels);
    perform set_config('shardman.new_renamed', case when shardman.renames_table(tag, query)
                       and exists (select from unnest(rels) r where shardman.shared_name(r) is null and (shardman.is_about_to_be_shared(r)
                                       or shardman.metadata_name(r) = any (string_to_array(nullif(current_setting('shardman.made', true), ''), chr(10)))
                                       -- It was dropped and made again: restore_layout, too, looks for it by its former name.
                                       or exists (select from shardman.remembered() l where l.relation = shardman.metadata_name(r)
                                                     and l.layout ->> 'kind' = 'shared')))
                       then 'on' else '' end, true);
    tables := array(select distinct shardman.shared_name(r) from unnest(rels) r where shardman.shared_name(r) is not null order by 1);
    if cardinality(tables) = 0 then
        return;
    elsif tag in ('GRANT', 'REVOKE') and not shardman.is_callers(tables[1]) then
        -- Who may grant rights on a table need not own it, and has no way to other nodes then. status tells what differs.
        return;
    end if;
    perform shardman.need_owner(t) from unnest(tables) t;
    perform shardman.need_plain_strings(query);
    perform shardman.need_one_sender(tables);
    perform shardman.await_new_tables();
    perform shardman.await_shared(r) from unnest(shardman.statement_refers_to(query, path)) r where tag = 'ALTER TABLE' and r <> all (tables);
    perform shardman.need_possible_shared(tables, query, tag, path);
    perform shardman.need_recorded(t) from unnest(tables) t where shardman.renames_table(tag, query);
    nodes := array(select distinct c.node from shardman.shared_copies c where c.relation = any (tables) and c.node <> shardman.my_id() order by 1);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.open_door(n) from unnest(nodes) n;
    perform shardman.open_bare_door(nullif(current_setting('shardman.ddl_now', true), '')::jsonb);
    perform set_config('shardman.ddl_busy', '', true);
    perform set_config('shardman.ddl_shared', array_to_string(tables, chr(10)), true), set_config('shardman.ddl_nodes', array_to_string(nodes, ','), true);
    perform set_config('shardman.ddl_wanted', array_to_string(nodes || shardman.my_id(), ','), true),
            set_config('shardman.ddl_change', gen_random_uuid()::text, true);
    perform set_config('shardman.ddl_rewritten', '', true), set_config('shardman.ddl_ranges', '', true);
end
$$;
comment on function shardman.start_shared_ddl(text, text, text) is
    'before DDL, as the cluster''s role: where it is about shared tables, opens doors to the nodes that have copies and says so to the triggers that follow';

create or replace function shardman.ddl_shared() returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Metadata may come at any moment, and call one otherwise than when the statement began.
    select array_agg(shardman.shared_now(n))
      from unnest(case when current_setting('shardman.ddl_busy', true) is distinct from 'on'
                       then string_to_array(nullif(current_setting('shardman.ddl_shared', true), ''), chr(10)) end) n
$$;
comment on function shardman.ddl_shared() is 'the shared tables that the statement is about that is just being done; null for none';
