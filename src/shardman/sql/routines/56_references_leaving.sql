-- Rows that others of their group refer to, and that an UPDATE of their key takes to another partition.
--
-- To PostgreSQL that is a DELETE from one data table and an INSERT into another one, as only data tables have foreign keys (manual, UPDATE, notes on
-- partitioned tables). ON DELETE CASCADE would so delete what refers to the row, where one server refuses the UPDATE or follows it.
-- A data table that is referred to with such an action lets no row go to which others refer; where the action writes nothing PostgreSQL refuses by itself.

create or replace function shardman.writes_rows(on_delete "char") returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$ select on_delete in ('c', 'n', 'd') $$;
comment on function shardman.writes_rows("char") is 'whether an action of a foreign key (pg_constraint.confdeltype) deletes or changes the rows that refer';

create or replace function shardman.same_columns(constraint_ oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Of other types than these there may be a cast, by a function of anybody's, and it is the cluster's role who asks. Sharded tables
    -- get no foreign key of others (shardman.inside_problem); a plain table of an owner's may have one to his data table.
    select case when bool_and(c.atttypid = r.atttypid or c.atttypid = any (ints) and r.atttypid = any (ints))
                then string_agg(format('($1).%I%s operator(%I.%s) x.%I', r.attname, ' collate ' || nullif(r.attcollation, 0)::regcollation, n.nspname, p.oprname, c.attname), ' and ') end
      from pg_constraint o cross join unnest(o.conkey, o.confkey, o.conpfeqop) as u (c, r, p)
      join pg_attribute c on c.attrelid = o.conrelid and c.attnum = u.c
      join pg_attribute r on r.attrelid = o.confrelid and r.attnum = u.r
      join pg_operator p on p.oid = u.p join pg_namespace n on n.oid = p.oprnamespace
     cross join (select array['int2', 'int4', 'int8']::regtype[]::oid[] as ints) i
     where o.oid = constraint_
$$;
comment on function shardman.same_columns(oid) is
    'of a foreign key: the condition that a row x refers to the row $1, by the foreign key''s own operators; null where its columns are of other types than what they refer to';

create or replace function shardman.is_referred(constraint_ oid, referred record) returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    same  constant text := shardman.same_columns(constraint_);
    there bool := false;
begin
    if same is not null then
        execute format('select exists (select from only %s x where %s)',
                       (select o.conrelid::regclass from pg_constraint o where o.oid = constraint_), same) into there using referred;
    end if;
    return there;
end
$$;
comment on function shardman.is_referred(oid, record) is 'whether rows refer to one by a foreign key';

-- As the cluster's role: who changes a row may not see all that refer to it.
create or replace function shardman.refuse_leaving() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    tab constant text := (shardman.relation_parts(shardman.part_relation(shardman.metadata_name(tg_relid))))[2];
    key record;
begin
    for key in
        select o.oid, o.conname, o.confupdtype, (shardman.relation_parts(shardman.part_relation(shardman.metadata_name(o.conrelid))))[2] as tab
          from pg_constraint o where o.confrelid = tg_relid and o.contype = 'f' and shardman.writes_rows(o.confdeltype) order by o.conname
    loop
        if not shardman.is_referred(key.oid, old) then
            continue;
        elsif key.confupdtype = 'c' then
            raise exception 'a row of "%" cannot go to another partition while rows of "%" refer to it', tab, key.tab
                using errcode = 'feature_not_supported', constraint = key.conname,
                      detail = format('"%s" is ON UPDATE CASCADE, which is done inside of one partition: a row goes to another one by DELETE and INSERT.', key.conname),
                      hint = 'Insert the row with its new key, let the others refer to that by UPDATE, then delete the old one.';
        end if;
        raise exception 'update or delete on table "%" violates foreign key constraint "%" on table "%"', tab, key.conname, key.tab
            using errcode = 'foreign_key_violation', constraint = key.conname, detail = format('Key is still referenced from table "%s".', key.tab);
    end loop;
    return new;
end
$$;
comment on function shardman.refuse_leaving() is 'before a row of a data table goes to another partition: raises where rows refer to it that ON DELETE would delete or change';

create or replace function shardman.lets_leave(of oid[] default null) returns table (data oid)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select distinct c.oid
      from pg_constraint o join pg_class c on c.oid = o.confrelid and c.relkind = 'r' and c.relispartition
     where o.contype = 'f' and shardman.writes_rows(o.confdeltype) and (of is null or c.oid = any (of) or o.conrelid = any (of))
       and shardman.part_relation(shardman.metadata_name(c.oid)) is not null
       and exists (select from pg_constraint k where k.conrelid = c.oid and k.conname = 'shardman_partition' and k.contype = 'c')
       and not exists (select from pg_trigger g where g.tgrelid = c.oid and g.tgname = '~shardman_leaving' and g.tgenabled = 'O')
$$;
comment on function shardman.lets_leave(oid[]) is
    'this node: data tables in use that are referred to, and from which a row may go to another partition; of: among these data tables and what they refer to';

create or replace function shardman.leaving_sql(data oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- The numbers of partitions are all that is read from a text. Behind others, which may still change the row.
    select format('create or replace trigger "~shardman_leaving" before update on %s for each row when ((%s) is distinct from (%s) '
                  'and not satisfies_hash_partition(%L::regclass::oid, %s, %s, %s)) execute function shardman.refuse_leaving()',
                  data::regclass, string_agg(format('old.%I', a.attname), ', ' order by k.n), string_agg(format('new.%I', a.attname), ', ' order by k.n),
                  p.partrelid::regclass, bound.of[1], bound.of[2], string_agg(format('new.%I', a.attname), ', ' order by k.n))
      from pg_partitioned_table p
     cross join lateral regexp_match((select pg_get_expr(c.relpartbound, c.oid) from pg_inherits i join pg_class c on c.oid = i.inhparent where i.inhrelid = data),
                                     '^FOR VALUES WITH \(modulus (\d+), remainder (\d+)\)$') as bound (of)
     cross join lateral unnest(p.partattrs) with ordinality as k (attnum, n)
      join pg_attribute a on a.attrelid = data and a.attname = (select r.attname from pg_attribute r where r.attrelid = p.partrelid and r.attnum = k.attnum)
     where p.partrelid = pg_partition_root(data)
     group by p.partrelid, bound.of
$$;
comment on function shardman.leaving_sql(oid) is 'the trigger of a data table that keeps its rows from leaving; null where its table is distributed by no columns';

create or replace function shardman.keep_rows(of oid[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    text_ text;
begin
    for text_ in select shardman.leaving_sql(l.data) from shardman.lets_leave(of) l loop
        execute text_;
    end loop;
end
$$;
comment on function shardman.keep_rows(oid[]) is 'keeps the rows of these data tables, and of those to which they refer, from leaving where others refer to them; locks no other tables';
