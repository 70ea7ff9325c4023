-- Unsharding: the cut-over, in which the shadow takes the table's place (83_unsharding.sql).

create or replace function shardman.plain_sequence(spec jsonb, tab oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    seq  constant text := shardman.sql_name(spec ->> 'name');
    next_ constant numeric := shardman.next_behind_all(spec);
    lines text[];
    line  text;
begin
    lines := array[
        -- This waits for whoever takes a number just now, and keeps others from it.
        format('alter sequence %s owned by none', seq),
        format('alter sequence %s minvalue 1 maxvalue %s start %s restart %3$s', seq, shardman.type_max((spec ->> 'type')::regtype), next_),
        format('alter sequence %s owned by %s.%I', seq, tab::regclass, spec ->> 'column')];
    foreach line in array lines loop
        execute line;
    end loop;
end
$$;
comment on function shardman.plain_sequence(jsonb, oid) is
    'a sequence of a sharded table becomes that of the plain one, which goes on above the numbers of all nodes';

create or replace function shardman.unshard_swap(relation text, shadow text, definition jsonb, cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    parent constant oid := shardman.find_relation(relation);
    plain  constant oid := shardman.find_relation(shadow);
    schema constant text := (shardman.relation_parts(relation))[1];
    line   text;
begin
    -- The names that the table has now.
    for line in
        select format('alter index %I.%I rename to %I', schema, c.relname, shardman.unshard_name(cmd_id, 'was' || row_number() over (order by c.oid)))
          from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = parent
        union all
        select format('alter statistics %I.%I rename to %I', n.nspname, s.stxname, shardman.unshard_name(cmd_id, 'had' || row_number() over (order by s.oid)))
          from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace where s.stxrelid = parent
        union all
        -- Other nodes know the way to them by name.
        select format('alter table %s rename to %I', shardman.sql_name(p.part), shardman.unshard_name(cmd_id, 'p' || p.k))
          from shardman.unshard_parts(relation) p
        union all
        select format('alter table %s rename to %I', shardman.sql_name(relation), shardman.unshard_name(cmd_id, 'was'))
        union all
        select format('alter index %I.%I rename to %I', schema, shardman.unshard_name(cmd_id, 'ix' || x.i), x.item ->> 'name')
          from shardman.plain_items(definition) x
        union all
        select format('alter statistics %I.%I rename to %I', schema, shardman.unshard_name(cmd_id, 'st' || x.i), x.s ->> 'name')
          from jsonb_array_elements(definition -> 'statistics') with ordinality as x (s, i)
        union all
        select format('alter statistics %I.%I set schema %I', schema, x.s ->> 'name', shardman.statistics_schema(x.s, relation))
          from jsonb_array_elements(definition -> 'statistics') as x (s) where shardman.statistics_schema(x.s, relation) <> schema
        union all
        select format('alter table %s rename to %I', shardman.sql_name(shadow), (shardman.relation_parts(relation))[2])
    loop
        execute line;
    end loop;
    perform shardman.plain_rights_of(parent, plain);
    perform shardman.own_statistics(plain);
    perform shardman.plain_sequence(s, plain) from jsonb_array_elements(definition -> 'sequences') s;
    for line in
        select format('alter table %s add constraint %I %s not valid', plain::regclass, f ->> 'name', f ->> 'sql')
          from jsonb_array_elements(definition -> 'foreign_keys') f where not f ? 'to_columns' and shardman.may_refer(relation, f)
        union all
        select format('comment on constraint %I on %s is %L', f ->> 'name', plain::regclass, f ->> 'comment')
          from jsonb_array_elements(definition -> 'foreign_keys') f
         where not f ? 'to_columns' and shardman.may_refer(relation, f) and f ->> 'comment' is not null
        union all
        select * from shardman.plain_row_triggers(definition)
    loop
        execute line;
    end loop;
end
$$;
comment on function shardman.unshard_swap(text, text, jsonb, bigint) is
    'inside the cut-over: the plain table takes the names of the sharded one, of its keys and indexes, its rights, its sequences and its triggers';

create or replace function shardman.plain_rights_of(parent oid, plain oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line text;
begin
    perform shardman.give_to(plain, (select c.relowner from pg_class c where c.oid = parent));
    perform shardman.need_trusted_types((select jsonb_agg(to_jsonb(p)) from shardman.policies_of(parent) p));
    for line in
        select * from shardman.privilege_changes(parent, plain)
        union all select * from shardman.policy_changes(parent, plain, true)
        union all
        select format('comment on policy %I on %s is %L', p.polname, plain::regclass, obj_description(p.oid, 'pg_policy'))
          from pg_policy p where p.polrelid = parent and obj_description(p.oid, 'pg_policy') is not null
    loop
        execute line;
    end loop;
end
$$;
comment on function shardman.plain_rights_of(oid, oid) is 'owner, privileges and policies of a sharded table for the plain one';

create or replace function shardman.former_parts(former text) returns table (schema_name text, part_name text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select n.nspname::text, c.relname::text
      from pg_inherits s join pg_class c on c.oid = s.inhrelid join pg_namespace n on n.oid = c.relnamespace
     where s.inhparent = shardman.find_relation(former) order by c.oid
$$;
comment on function shardman.former_parts(text) is 'the partitions of what a sharded table is called once it is a plain one';

create or replace function shardman.validate_plain(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name_ name;
    tab   constant oid := shardman.find_relation(relation);
begin
    for name_ in select o.conname from pg_constraint o where o.conrelid = tab and o.contype = 'f' and not o.convalidated and shardman.compares_plainly(o.oid) loop
        execute format('alter table %s validate constraint %I', tab::regclass, name_);
    end loop;
end
$$;
comment on function shardman.validate_plain(text) is 'validates the foreign keys of a table that was a sharded one, beside readers and writers';
