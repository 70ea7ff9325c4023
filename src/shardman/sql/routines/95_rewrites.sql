-- DDL that writes all rows of a table anew: each copy does so for itself, so each must come to the same.
--
-- A new type does where the cast is PostgreSQL's own and depends on the value alone. One that depends on the session (a time zone, a format of
-- dates) would not, and one of somebody's own would run with the rights of the cluster's role, to whom replicas belong.

create or replace function shardman.casts_alike(source oid, target oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- The first OID that PostgreSQL gives to what is made by users is 16384.
    select greatest(source, target, coalesce(c.oid, 0)) < 16384
           and case when c.castmethod = 'b' or c.oid is null and source = target then true
                    when c.castmethod = 'f' then (select p.provolatile = 'i' from pg_proc p where p.oid = c.castfunc)
                    else (select bool_and(p.provolatile = 'i') from pg_type s, pg_type t, pg_proc p
                           where s.oid = source and t.oid = target and p.oid in (s.typoutput, t.typinput)) end
      from (select) as one left join pg_cast c on (c.castsource, c.casttarget) = (source, target)
$$;
comment on function shardman.casts_alike(oid, oid) is 'whether a cast is PostgreSQL''s own and depends on nothing but the value';

create or replace function shardman.rewrites_alike(data oid, relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- To its own type: to another length. What has got another name in the same transaction is not found, and not vouched for.
    select coalesce(bool_and(shardman.casts_alike(to_regtype(f ->> 'type'), a.atttypid) and shardman.casts_alike(a.atttypid, a.atttypid)), false)
      from shardman.tables t
     cross join lateral jsonb_array_elements(t.definition -> 'columns') f
      join pg_attribute a on a.attrelid = data and a.attname = f ->> 'name'
     where t.relation = rewrites_alike.relation and f ->> 'type' <> format_type(a.atttypid, a.atttypmod)
$$;
comment on function shardman.rewrites_alike(oid, text) is 'whether the new types of columns of a data table give the same values on each copy';

create or replace function shardman.on_rewrite() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    data      constant oid := pg_event_trigger_table_rewrite_oid();
    new_type  constant int := 4;
    relation_ text;
begin
    if shardman.shared_name(data) is not null then
        perform set_config('shardman.ddl_rewritten', 'on', true);
        return;
    end if;
    select p.relation into relation_
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      join shardman.partitions p on p.part_name = shardman.relation_text(n.nspname, regexp_replace(c.relname, '_data$', ''))
     where c.oid = data and c.relispartition and c.relname like '%\_data'
       and exists (select from shardman.partitions x where x.relation = p.relation and x.prv is not null) limit 1;
    if not found or not shardman.is_member() or coalesce(current_setting('shardman.ddl', true), '') = 'here' then
        return;
    end if;
    -- The bits of this number: https://www.postgresql.org/docs/current/functions-event-triggers.html
    if pg_event_trigger_table_rewrite_reason() <> new_type or not shardman.rewrites_alike(data, relation_) then
        raise exception 'this would write the rows of % anew on each of its copies, with values that may differ', relation_
            using errcode = 'feature_not_supported',
                  hint = 'A new column: add it without a default, set the default, then fill it by UPDATE. A new type: take the replicas '
                         'away with shardman.set_replevel(..., 0), and give them back afterwards.';
    end if;
end
$$;
comment on function shardman.on_rewrite() is 'raises where a table with replicas would be written anew, and copies could get other values than their primaries';
