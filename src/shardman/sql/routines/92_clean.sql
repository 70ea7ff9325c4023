-- What shardman clean does on one node.

create or replace function shardman.drop_set_aside(in_schema text, named text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    relation constant regclass := to_regclass(format('%I.%I', in_schema, named));
begin
    if relation is null or not exists (select from shardman.set_aside a where a.schema_name = in_schema and a.table_name = named) then
        raise exception 'no table %.% was set aside here', in_schema, named
            using errcode = 'undefined_table', hint = 'See shardman.set_aside.';
    end if;
    execute format('lock table %s in access exclusive mode', relation);
    if exists (select from pg_inherits i where relation in (i.inhrelid, i.inhparent))
       or exists (select from pg_publication_rel r where r.prrelid = relation) then
        raise exception '% is in use: it is a partition, or published', relation
            using errcode = 'object_in_use', hint = 'Look at it before you drop it by hand.';
    end if;
    execute format('drop table %s', relation);
end
$$;
comment on function shardman.drop_set_aside(text, text) is
    'drops a table that was set aside on this node, unless it is in use again; shardman clean proves before that its rows are elsewhere';

create or replace function shardman.asides_of(relation_ text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(shardman.relation_text(a.schema_name, a.table_name) order by 1), '{}')
      from shardman.set_aside a join shardman.partitions p on p.part_name = a.part_name and p.prv is null
     where p.relation = relation_
$$;
comment on function shardman.asides_of(text) is 'the tables that were set aside on this node and were copies of partitions of a sharded table';

create or replace function shardman.drop_asides(names text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text;
begin
    foreach name in array names loop
        if shardman.find_relation(name) is not null then
            perform shardman.drop_set_aside((shardman.relation_parts(name))[1], (shardman.relation_parts(name))[2]);
        end if;
    end loop;
end
$$;
comment on function shardman.drop_asides(text[]) is 'drops tables that were set aside on this node; those that are gone do no harm';

create or replace function shardman.asides_here() returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'name', shardman.relation_text(a.schema_name, a.table_name), 'part_name', a.part_name, 'cmd_type', a.cmd_type,
               'in_use', exists (select from pg_inherits i where c.oid in (i.inhrelid, i.inhparent))
                         or exists (select from pg_publication_rel r where r.prrelid = c.oid)) order by a.schema_name, a.table_name), '[]')
      from shardman.set_aside a
      join pg_namespace n on n.nspname = a.schema_name
      join pg_class c on c.relnamespace = n.oid and c.relname = a.table_name
$$;
comment on function shardman.asides_here() is 'the tables that were set aside on this node, whose copies they were, by which command, and whether they are in use again';

create or replace function shardman.served_here() returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(s.part_name), '[]') from shardman.status_partitions s where s.here = 'primary'
$$;
comment on function shardman.served_here() is 'the partitions whose primaries are attached on this node';
