-- ALTER TABLE … ALTER c TYPE t USING c::t, as Django, knex and others send it, of a sharded table.
--
-- PostgreSQL refuses USING above foreign tables, whatever it says. Where it says nothing but the cast to the new type, the statement without it is sent
-- to the other nodes and done here; the statement itself, which nobody can take back once it is on its way, is done to an empty table that
-- stands in the place of the sharded one meanwhile, on this node alone (96_stand_in.sql).

create or replace function shardman.without_casts(query text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select regexp_replace(shardman.one_statement(query), replace(
               '(\malter\s+(?:column\s+)?(WORD)\s+(?:set\s+data\s+)?type\s+([^;]+?)(?:\s+collate\s+WORD(?:\s*\.\s*WORD)?)?)\s+using\s*'
               '(?:\s\2\s*::\s*\3|\(\s*\2\s*::\s*\3\s*\))(?=\s*(?:,|$))', 'WORD', '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'), '\1', 'gi')
$$;
comment on function shardman.without_casts(text) is 'a statement without each USING that is but the cast of the column to its new type';

create or replace function shardman.is_cast(query text, tag text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(tag = 'ALTER TABLE' and shardman.plain_words(query) ~* '\musing\M' and shardman.plain_words(shardman.without_casts(query)) !~* '\musing\M', false)
$$;
comment on function shardman.is_cast(text, text) is 'whether a statement has USING, and in it nothing but casts to new types';

create or replace function shardman.sent_statement(query text, tag text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when shardman.is_cast(query, tag) then shardman.without_casts(query) else query end
$$;
comment on function shardman.sent_statement(text, text) is 'what is sent to other nodes for a statement about a sharded table';

create or replace function shardman.refuse_using() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'PostgreSQL changes no type with USING in a table that has partitions on other nodes' using errcode = 'feature_not_supported',
        hint = 'USING column::type is understood, where such values may be assigned to the column. Else: a new column, an UPDATE, DROP and RENAME COLUMN.';
end
$$;
comment on function shardman.refuse_using() is 'raises what an ALTER TABLE with an expression behind USING gets';

create or replace function shardman.set_aside_for_cast(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.set_aside(relation);
    execute format('alter table %s owner to %I', shardman.sql_name(relation),
                   (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = shardman.table_behind(relation)));
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.set_aside_for_cast(text) is 'at the end of the gate, for the owner of a sharded table: what follows is done to an empty one';

create or replace function shardman.put_back_for_cast(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.put_back(relation);
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.put_back_for_cast(text) is 'ends shardman.set_aside_for_cast';

create or replace function shardman.cast_here(relation text, query text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.put_back_for_cast(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    begin
        perform set_config('search_path', current_setting('shardman.ddl_path', true), true);
        execute shardman.sent_statement(query, tag);
    exception when datatype_mismatch then
        perform shardman.refuse_using();
    end;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), pg_catalog.set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.cast_here(text, text, text) is 'as the caller: does to a sharded table, without USING, what was done to the empty one in its place';
