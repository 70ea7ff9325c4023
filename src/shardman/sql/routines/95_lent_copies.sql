-- GRANT and REVOKE ON ALL TABLES IN SCHEMA. PostgreSQL refuses the whole statement where a table of the schema is there on which who
-- sends it has no privilege at all, and replicas belong to the cluster's role: not to the owner of their table, who knows nothing of them.

create or replace function shardman.statement_here() returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when current_setting('shardman.ddl', true) = 'spread' then current_setting('shardman.ddl_arrived', true) else shardman.statement_now() end
$$;
comment on function shardman.statement_here() is 'the statement of DDL of a table that is under way, also where another node has sent it: there PostgreSQL shows what it came in';

create or replace function shardman.lend_copies(query text, lend bool) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    who  name;
    busy constant text := coalesce(current_setting('shardman.ddl_busy', true), '');
    verb constant text := case when lend then 'grant select on %s to %I' else 'revoke select on %s from %I' end;
    copy oid;
    any_ bool := false;
begin
    if coalesce(query, '') !~* '\son\s+all\s+tables\s+in\s+schema\s' then
        return;
    end if;
    who := shardman.caller();
    if pg_has_role(who, shardman.our_role(), 'usage') then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    for copy in
        select c.oid
          from unnest(shardman.granted_tables(query, current_setting('shardman.ddl_path', true))) as t (relation)
         cross join lateral shardman.copies_here(t.relation) as k (oid) join pg_class c on c.oid = k.oid and c.relowner = shardman.our_role()
          join pg_class p on p.oid = shardman.find_relation(t.relation) and pg_has_role(who, p.relowner, 'usage')
    loop
        execute format(verb, copy::regclass, who);
        any_ := true;
    end loop;
    perform set_config('shardman.ddl_busy', busy, true);
    if any_ and lend then
        -- That nothing was granted on each of them is true, and what he wants.
        perform set_config('shardman.ddl_messages', current_setting('client_min_messages'), true), set_config('client_min_messages', 'error', true);
    elsif any_ then
        perform set_config('client_min_messages', coalesce(nullif(current_setting('shardman.ddl_messages', true), ''), 'notice'), true);
    end if;
end
$$;
comment on function shardman.lend_copies(text, bool) is
    'before GRANT and REVOKE on all tables of a schema lets who owns a sharded table see its copies here, without which PostgreSQL refuses the statement; '
    'after it takes that back';
