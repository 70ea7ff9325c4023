-- DDL that a sharded table cannot have, and who may not change it: said before anything is locked, with the way out.

create or replace function shardman.refuse_drop(relation text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% is sharded, and this would drop the rows of this node only', relation
        using errcode = 'feature_not_supported', hint = format('Send DROP TABLE %s by itself, or with nothing but DDL in one query, and not from within a function or DO; or: select shardman.drop_table(%L).',
                                            shardman.sql_name(relation), relation);
end
$$;
comment on function shardman.refuse_drop(text) is 'raises what a DROP TABLE of a sharded table gets';

create or replace function shardman.need_referable(relation text, query text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    other text;
begin
    if shardman.plain_words(query) ~* '\mnot\s+valid\M' then
        raise exception 'a foreign key of % cannot be added NOT VALID', relation
            using errcode = 'feature_not_supported', hint = format('select shardman.add_foreign_key(%L, ...) reads the rows beside writers.', relation);
    elsif shardman.plain_words(query) ~* '\mnot\s+enforced\M' then
        raise exception 'a foreign key of % cannot be NOT ENFORCED', relation using errcode = 'feature_not_supported', hint = 'Leave it out.';
    end if;
    for other in select r from unnest(shardman.statement_refers_to(query, path)) r where r <> relation loop
        perform shardman.await_shared(other);
        if not shardman.colocated(relation, other) and not exists (select from shardman.shared_tables s where s.relation = other) then
            raise exception '% is neither a shared table nor colocated with %', other, relation
                using errcode = 'feature_not_supported',
                      hint = case when exists (select from shardman.tables t where t.relation = other)
                                  then format('If the foreign key has the keys of both: select shardman.colocate(%L, %L).', relation, other)
                                  else format('A small table can be shared: select shardman.create_shared_table(%L, ...).', other) end;
        end if;
    end loop;
end
$$;
comment on function shardman.need_referable(text, text, text) is 'raises where a statement makes a foreign key of a sharded table that plain DDL cannot make';

create or replace function shardman.refuse_index_name(relation text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% is a table, and ALTER INDEX would rename it', relation using errcode = 'wrong_object_type', hint = 'ALTER TABLE renames tables.';
end
$$;
comment on function shardman.refuse_index_name(text) is 'raises where a table is to be renamed as an index';

create or replace function shardman.need_key_named(relation text, query text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    rel     constant oid := shardman.find_relation(relation);
    lacking constant text := (
        select string_agg(quote_ident(a.attname), ', ' order by a.attnum)
          from pg_partitioned_table p join pg_attribute a on a.attrelid = p.partrelid and a.attnum = any (p.partattrs::int2[])
         where p.partrelid = rel
           and shardman.one_statement(query) !~* format('("%s"|\m%1$s\M)', regexp_replace(replace(a.attname, '"', '""'), '(\W)', '\\\1', 'g')));
begin
    if lacking is not null and shardman.plain_words(query) !~* '\mif\s+not\s+exists\M' then
        raise exception 'unique constraint on partitioned table must include all partitioning columns'
            using errcode = 'feature_not_supported',
                  detail = format('The index lacks %s, by which the rows of %s are distributed: no node has all of them.', lacking, relation),
                  hint = format('Add %s to its columns; or, where the table is small, share it: select shardman.create_shared_table(%L, ...).', lacking, relation);
    end if;
end
$$;
comment on function shardman.need_key_named(text, text) is
    'raises where a CREATE UNIQUE INDEX does not even name a column of the key: what else PostgreSQL wants it says itself';

create or replace function shardman.need_possible(relation text, query text, tag text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    words constant text := regexp_replace(shardman.one_statement(query), '''([^'']|'''')*''|"([^"]|"")*"', 'x', 'g');
begin
    perform shardman.need_numbers_kept(relation, query, tag);
    if shardman.renames_by_index(query, tag, path) then
        perform shardman.refuse_index_name(relation);
    elsif words ~* '\mconcurrently\M' then
        raise exception 'PostgreSQL cannot build or drop an index of a partitioned table concurrently'
            using errcode = 'feature_not_supported',
                  hint = case tag when 'CREATE INDEX' then format('select shardman.create_index_concurrently(%L) builds it beside writers.',
                                                                 regexp_replace(shardman.one_statement(query), '\mconcurrently\s+', '', 'i'))
                                  else 'Leave CONCURRENTLY out; to drop one takes a moment.' end;
    elsif tag = 'ALTER TABLE' and words ~* '\musing\s+index\M' then
        raise exception 'PostgreSQL makes no key of a partitioned table of an index'
            using errcode = 'feature_not_supported', hint = format('ALTER TABLE %s ADD CONSTRAINT ... UNIQUE (...) builds its own.', relation);
    elsif tag = 'ALTER TABLE' and words ~* '\mtype\s([^,(]|\([^)]*\))*\musing\M' and not shardman.is_cast(query, tag) then
        perform shardman.refuse_using();
    elsif shardman.is_cast(query, tag) and shardman.needs_stand_in(relation, query, tag, path) then
        perform shardman.refuse_mixture(relation);
    elsif tag = 'CREATE INDEX' and words ~* '^create\s+unique\M' then
        perform shardman.need_key_named(relation, query);
    elsif tag = 'ALTER TABLE' and words ~* '\malter\s+constraint\M' and shardman.touches_reference(relation, query) then
        raise exception 'a foreign key of % cannot be altered: its data tables have it', relation
            using errcode = 'feature_not_supported', hint = 'Drop it, and add it anew.';
    elsif shardman.storage_form(query, tag) is not null then
        perform shardman.refuse_storage(relation, shardman.storage_form(query, tag));
    elsif tag = 'ALTER TABLE' and words ~* '\madd\M.*\mreferences\M' then
        perform shardman.need_referable(relation, query, path);
    end if;
end
$$;
comment on function shardman.need_possible(text, text, text, text) is 'raises where a change of a sharded table cannot be made at all';

create or replace function shardman.refuse_hidden(query text, tag text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    statement text;
    relation  text;
begin
    if shardman.is_own_ddl() or shardman.one_statement(query) is not null then
        return;
    end if;
    foreach statement in array coalesce(shardman.split_statements(query), '{}') loop
        relation := shardman.sharded_name(shardman.ddl_relation(statement, tag, path));
        if relation is not null then
            perform shardman.refuse_lone(relation, 'trigger', null, tag);
        end if;
    end loop;
end
$$;
comment on function shardman.refuse_hidden(text, text, text) is
    'before a trigger is dropped or altered in a query with others that are no DDL: raises where it is about a sharded table. PostgreSQL would find none there, or skip it';

create or replace function shardman.refuse_grantor(relation text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- Who has none of its rights to give PostgreSQL tells so.
    if has_any_column_privilege((select shardman.caller()), shardman.find_relation(relation),
                                'select with grant option, insert with grant option, update with grant option, references with grant option')
       or has_table_privilege((select shardman.caller()), shardman.find_relation(relation),
                              'delete with grant option, truncate with grant option, trigger with grant option') then
        raise exception '% is sharded, and this would change rights on this node only', relation
            using errcode = 'feature_not_supported', hint = 'Its owner''s GRANT reaches all nodes, and that of who owns another sharded table.';
    end if;
end
$$;
comment on function shardman.refuse_grantor(text) is 'raises where somebody gives rights on a sharded table that he may give, and has no way to other nodes';

create or replace function shardman.is_callers(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Inside a function that acts as the cluster's role, current_user is not who called it.
    select coalesce(pg_has_role((select shardman.caller()), c.relowner, 'usage'), false)
      from pg_class c where c.oid = shardman.find_relation(relation)
$$;
comment on function shardman.is_callers(text) is 'whether the caller owns a sharded table';

create or replace function shardman.need_owner(relation text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.is_callers(relation) is not true then
        raise exception 'must be owner of %', relation using errcode = 'insufficient_privilege', hint = 'Ask its owner.';
    end if;
end
$$;
comment on function shardman.need_owner(text) is 'raises unless the caller may change a sharded table';

create or replace function shardman.need_one_sender(tables text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    me    constant text := shardman.caller();
    known constant jsonb := coalesce(nullif(current_setting('shardman.ddl_senders', true), ''), '{}')::jsonb;
    t     text;
begin
    foreach t in array tables loop
        if known ->> t <> me then
            raise exception '% was changed in this transaction as %, and is kept by that on other nodes until it ends', t, known ->> t
                using errcode = 'object_in_use', hint = 'COMMIT before SET ROLE or RESET ROLE; or let one role change the table.';
        end if;
    end loop;
    -- Of this transaction; a savepoint that is rolled back has it forgotten, and gives back the locks.
    perform set_config('shardman.ddl_senders', (known || (select coalesce(jsonb_object_agg(u, me), '{}') from unnest(tables) u))::text, true);
end
$$;
comment on function shardman.need_one_sender(text[]) is
    'before DDL: raises where another role has changed one of these tables in this transaction, for each has connections of its own to other nodes, and would wait for the first';

create or replace function shardman.need_plain_strings(query text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('shardman.ddl_strings', true) = 'off' and strpos(query, chr(92)) > 0 then
        raise exception 'with standard_conforming_strings off the backslash in this statement would mean something else on other nodes'
            using errcode = 'feature_not_supported', hint = 'Send it after SET standard_conforming_strings = on.';
    end if;
end
$$;
comment on function shardman.need_plain_strings(text) is 'raises where another node would read the text of a statement otherwise than the session that sends it';
