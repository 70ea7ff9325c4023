-- REINDEX INDEX of a sharded table's index: what its rows are found by are the indexes of the data tables, and the table's own stands for them.
-- PostgreSQL would do nothing, and say nothing. From 17 on event triggers see it.

create or replace function shardman.on_reindex() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    word     constant text := '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)';
    named    constant text := (regexp_match(shardman.one_statement(current_query()),
                                            '^reindex\s*(?:\([^)]*\)\s*)?index\s+(?:concurrently\s+)?(' || word || '(?:\s*\.\s*' || word || ')?)', 'i'))[1];
    rel      oid;
    relation text;
begin
    if named is null or not shardman.is_member() or shardman.is_copy() or shardman.is_own_ddl() then
        return;
    end if;
    perform set_config('search_path', current_setting('shardman.ddl_path', true), true);
    rel := pg_catalog.to_regclass(named)::pg_catalog.oid;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    select shardman.sharded_name(i.indrelid) into relation from pg_index i where i.indexrelid = rel;
    if relation is not null then
        raise exception 'index % stands for those of the data tables of %, which this would leave as they are', named, relation
            using errcode = 'feature_not_supported',
                  hint = format('REINDEX TABLE %1$s builds all indexes of this node''s data tables anew; on all nodes: shardman exec ''reindex table %1$s''.',
                                shardman.sql_name(relation));
    end if;
end
$$;
comment on function shardman.on_reindex() is 'before REINDEX: refuses that of an index of a sharded table as a whole, which would do nothing';
