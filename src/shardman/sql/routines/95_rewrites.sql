-- DDL that writes all rows of a table anew: each copy does so for itself, so each must come to the same.
--
-- A new type does where the cast is PostgreSQL's own and depends on the value alone. One that depends on the session (a time zone, a format of
-- dates) would not, and one of somebody's own would run with the rights of the cluster's role, to whom replicas belong. A new generated column does.

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

create or replace function shardman.await_types(relation text, query text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if query !~* '\mtype\M' or current_setting('transaction_isolation') <> 'read committed'
       or not exists (select from shardman.partitions p where p.relation = await_types.relation and p.prv is not null) then
        return;
    end if;
    -- What this transaction has changed by itself is not in the metadata before it ends.
    while clock_timestamp() < statement_timestamp() + interval '10 s'
      and not exists (select from shardman.schema_changes c where await_types.relation = any (c.tables) and c.made_at >= now())
      and exists (select from shardman.tables t, jsonb_array_elements(t.definition -> 'columns') f, pg_attribute a
                   where t.relation = await_types.relation and a.attrelid = shardman.find_relation(t.relation) and a.attname = f ->> 'name'
                     and f ->> 'type' <> format_type(a.atttypid, a.atttypmod)) loop
        perform pg_sleep(0.05);
    end loop;
end
$$;
comment on function shardman.await_types(text, text) is
    'before a new type of a table with replicas: waits until the metadata know the types of now, by which shardman.rewrites_alike judges, for ten seconds at most';

create or replace function shardman.generates_alike(data oid, relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Of columns that the metadata do not know yet. Others than generated ones may have values of a default that gives each row its own.
    select exists (select from shardman.tables t where t.relation = generates_alike.relation)
       and bool_and(a.attgenerated = 's' or d.oid is null and (y.typdefault is null or shardman.is_constant(y.typdefault)) or a.atthasmissing
                    or d.oid is not null and shardman.is_constant(pg_get_expr(d.adbin, d.adrelid)))
      from pg_attribute a join pg_type y on y.oid = a.atttypid
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = data and a.attnum > 0 and not a.attisdropped
       and not exists (select from shardman.tables t, jsonb_array_elements(t.definition -> 'columns') c
                        where t.relation = generates_alike.relation and c ->> 'name' = a.attname)
$$;
comment on function shardman.generates_alike(oid, text) is
    'whether new columns of a data table give the same values on each copy: what is generated is computed from the row alone, a domain with a check has '
    'all rows written though its default is a constant';

create or replace function shardman.refuse_rewrite(relation text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'this would write the rows of % anew on each of its copies, with values that may differ', relation
        using errcode = 'feature_not_supported',
              hint = 'A new column: add it without a default, set the default, then fill it by UPDATE. A new type: take the replicas '
                     'away with shardman.set_replevel(..., 0), and give them back afterwards; behind another new type, try again in a moment.';
end
$$;
comment on function shardman.refuse_rewrite(text) is 'raises for what replicas would do otherwise than their primaries';

create or replace function shardman.on_rewrite() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    data      constant oid := pg_event_trigger_table_rewrite_oid();
    -- The bits of this number: https://www.postgresql.org/docs/current/functions-event-triggers.html
    reason    constant int := pg_event_trigger_table_rewrite_reason();
    new_value constant int := 2;
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
    if not (reason = new_type and shardman.rewrites_alike(data, relation_) or reason = new_value and shardman.generates_alike(data, relation_)) then
        perform shardman.refuse_rewrite(relation_);
    end if;
end
$$;
comment on function shardman.on_rewrite() is 'raises where a table with replicas would be written anew, and copies could get other values than their primaries';
