-- The structure of our tables as the catalog shows it, without any metadata.

create or replace function shardman.leaves(parent oid) returns table (part oid, leaf oid, kind text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select s.inhrelid, l.inhrelid,
           case when lc.relkind = 'f' and (v.srvname like 'shardman\_node\_%' or v.srvname = 'shardman_missing') then 'route'
                when lc.relkind = 'r' and lc.relname = sc.relname || '_data' then 'data'
                when lc.oid is null then 'none'
                else 'other' end
      from pg_inherits s
      join pg_class sc on sc.oid = s.inhrelid
      left join pg_inherits l on l.inhparent = s.inhrelid
      left join pg_class lc on lc.oid = l.inhrelid
      left join pg_foreign_table f on f.ftrelid = lc.oid
      left join pg_foreign_server v on v.oid = f.ftserver
     where s.inhparent = parent
$$;
comment on function shardman.leaves(oid) is 'the partitions of a sharded table and what is in them';

create or replace function shardman.sharded_by_structure() returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.oid
      from pg_class c join pg_partitioned_table p on p.partrelid = c.oid and p.partstrat = 'h'
     where c.relkind = 'p' and not c.relispartition
       and exists (select from shardman.leaves(c.oid) l where l.kind in ('route', 'data'))
       and not exists (
           select from pg_inherits i join pg_class s on s.oid = i.inhrelid
             left join pg_partitioned_table sp on sp.partrelid = s.oid
            where i.inhparent = c.oid and (sp.partstrat is distinct from 'l' or s.relname !~ '_[0-9]+$'))
       and not exists (select from shardman.leaves(c.oid) l where l.kind = 'other')
$$;
comment on function shardman.sharded_by_structure() is 'the tables of this database that look as if a cluster had made them, and nobody else';

create or replace function shardman.aside_name(part_name text, cmd_id bigint) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select case when octet_length(p[2] || s) <= 63 then p[2] || s
                else shardman.cut_bytes(p[2], 63 - 9 - octet_length(s)) || '_' || left(md5(p[2]), 8) || s end
      from (select shardman.relation_parts(part_name) as p, '_aside_c' || cmd_id as s) as r
$$;
comment on function shardman.aside_name(text, bigint) is
    'what a data table is called once it is out of the way; different for different partitions';

create or replace function shardman.set_data_aside(data oid, part_name text, cmd_id bigint) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    aside constant text := shardman.aside_name(part_name, cmd_id);
    col   name;
begin
    -- The check names a parent that will be gone, the defaults sequences that go with it.
    execute format('alter table %s drop constraint if exists shardman_partition', data::regclass);
    for col in
        select distinct a.attname
          from pg_attrdef f
          join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum and a.attgenerated = ''
          join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass
          join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
         where f.adrelid = data
    loop
        execute format('alter table %s alter column %I drop default', data::regclass, col);
    end loop;
    -- What is taken from a role on the sharded table is taken here by nobody.
    perform shardman.leave_to_owner(data);
    perform shardman.give_to(data, c.relowner) from pg_class c where c.oid = shardman.find_relation(part_name);
    execute format('alter table %s rename to %I', data::regclass, aside);
    return shardman.metadata_name(data);
end
$$;
comment on function shardman.set_data_aside(oid, text, bigint) is 'makes a data table, already detached, an ordinary table under another name';

create or replace function shardman.keep_marks() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data oid;
begin
    for data in select o.conrelid from pg_constraint o where o.conname = 'shardman_partition' and o.contype = 'c' order by 1 loop
        execute format('alter table %s drop constraint shardman_partition, add constraint shardman_partition check (true) not valid', data::regclass);
    end loop;
end
$$;
comment on function shardman.keep_marks() is
    'before this schema is dropped, which would take the checks of data tables along: they get one that needs nothing of ours, by which '
    'shardman.forget_tables knows them should the database become a node again';

create or replace function shardman.forget_tables(cmd_id bigint) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
    aside  text[] := '{}';
    parent oid;
    l      record;
begin
    -- Replicas, and what a command had not put in its place yet: first, because their defaults use the parents' sequences.
    for l in
        select c.oid, shardman.metadata_name(c.oid) as name
          from pg_class c join pg_constraint o on o.conrelid = c.oid and o.conname = 'shardman_partition' and o.contype = 'c'
         where c.relkind = 'r' and not c.relispartition order by c.oid
    loop
        if l.name ~ '_data"?$' then
            aside := aside || shardman.set_data_aside(l.oid, regexp_replace(l.name, '_data("?)$', '\1'), cmd_id);
        else
            execute format('alter table %s drop constraint shardman_partition', l.oid::regclass);
            aside := aside || l.name;
        end if;
    end loop;
    for parent in select * from shardman.sharded_by_structure() loop
        for l in select * from shardman.leaves(parent) loop
            if l.kind = 'data' then
                execute format('alter table %s detach partition %s', l.part::regclass, l.leaf::regclass);
                aside := aside || shardman.set_data_aside(l.leaf, shardman.metadata_name(l.part), cmd_id);
            end if;
            execute format('drop table %s', l.part::regclass);
        end loop;
        execute format('drop table %s', parent::regclass);
    end loop;
    for l in
        select c.oid from pg_foreign_table f join pg_class c on c.oid = f.ftrelid join pg_foreign_server s on s.oid = f.ftserver
         where s.srvname ~ '^shardman_(node_[0-9]+(_c[0-9]+)?|missing)$' and c.relname ~ '_[0-9]+_fdw$' and not c.relispartition
    loop
        execute format('drop foreign table %s', l.oid::regclass);
    end loop;
    return aside;
end
$$;
comment on function shardman.forget_tables(bigint) is
    'on a node that was in another cluster: drops its sharded tables but for their rows; the data tables become ordinary tables '
    'with other names, which are returned';
