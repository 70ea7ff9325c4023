-- Foreign keys between colocated tables by plain ALTER TABLE. PostgreSQL looks for a key of the other table that is valid, and above
-- partitions on other nodes none is. So the other table gets a stand-in, too, while the statement is done (96_stand_in.sql): its columns
-- and keys, without rows. Both are held by the gate, for the data tables of both are locked when the foreign key is made.

create or replace function shardman.refers_beside(relation text, query text, path text) returns text[]
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select array(select r from unnest(shardman.statement_refers_to(query, path)) r
                  where r <> relation and exists (select from shardman.tables t where t.relation = r) order by 1)
$$;
comment on function shardman.refers_beside(text, text, text) is 'the other sharded tables to which the foreign keys refer that a statement makes';

create or replace function shardman.hold_beside(relation text, other text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    who    constant name := shardman.caller();
    target constant oid := shardman.find_relation(other);
    item   jsonb;
begin
    perform shardman.need_owner(relation), shardman.need_known(other);
    if not shardman.colocated(relation, other) then
        raise exception '% is not colocated with % on node %', other, relation, shardman.my_id()
            using errcode = 'object_not_in_prerequisite_state', hint = 'It has just been, or is just being: repeat the transaction.';
    elsif shardman.called_here(other) <> other then
        raise exception '% has just got another name, and no foreign key can refer to it yet', other
            using errcode = 'object_not_in_prerequisite_state', hint = 'Add it before the table is renamed, or in another transaction a moment later.';
    elsif not has_any_column_privilege(who, target, 'references') then
        perform shardman.need_references_right(other, null);
    end if;
    execute format('lock table only %1$s in access exclusive mode; lock table %1$s in share row exclusive mode', target::regclass);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.mend_keys(t.definition, target) from shardman.tables t where t.relation = hold_beside.other;
    perform shardman.set_aside(other);
    for item in select * from jsonb_array_elements(shardman.plain_keys(target)) loop
        execute format('alter table %s add constraint %I %s', shardman.sql_name(other), item ->> 'name', item ->> 'sql');
    end loop;
    -- Whether he may was looked up; the foreign keys of the data tables PostgreSQL looks at once more.
    execute format('grant references on %s to public', shardman.sql_name(other));
    execute format('comment on table %s is %L', shardman.sql_name(other), shardman.behind());
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.hold_beside(text, text) is
    'a part of the gate, for the owner of a sharded table who may refer to another one that is colocated: keeps its writers away, and puts an empty table into its place';

create or replace function shardman.put_back_beside() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    other text;
begin
    for other in
        select t.relation from shardman.tables t
         where shardman.table_behind(t.relation) is not null and obj_description(shardman.find_relation(t.relation), 'pg_class') = shardman.behind()
    loop
        perform shardman.put_back(other);
    end loop;
end
$$;
comment on function shardman.put_back_beside() is 'ends what shardman.hold_beside has begun';

create or replace function shardman.hold_data_tables(relation text, other text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data oid;
begin
    for data in select d.data from shardman.data_tables_here(shardman.find_relation(other)) d where shardman.colocated(relation, other) loop
        execute format('lock table only %s in access exclusive mode', data::regclass);
    end loop;
end
$$;
comment on function shardman.hold_data_tables(text, text) is 'a part of the gate: locks what the foreign keys refer to that a statement drops, inside a group';

create or replace function shardman.refuse_reference_to_sharded(query text, tag text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    other text;
begin
    -- One that was dropped a moment ago may have a plain one in its place, as when pgbench makes its tables anew.
    select r into other from unnest(shardman.statement_refers_to(query, path)) r
     where not shardman.is_put_away(r) and shardman.sharded_name(shardman.find_relation(r)) is not null limit 1;
    if other is not null then
        raise exception '% is sharded, and only a table that is colocated with it can refer to it', other using errcode = 'feature_not_supported',
            hint = case when tag = 'CREATE TABLE' then 'Make the table without the foreign key; then shard' else 'Shard' end
                   || format(' it by the column that refers, colocated: select shardman.create_hash_partitions(..., colocate_with => %L). Then ALTER TABLE adds the '
                             'foreign key. Or keep both unsharded, or shared.', other);
    end if;
end
$$;
comment on function shardman.refuse_reference_to_sharded(text, text, text) is
    'before DDL of a table that is not sharded: raises where it would refer to one that is, of which PostgreSQL only says that it has no key';

create or replace function shardman.on_table_start() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    statement constant text := shardman.one_statement(current_query());
begin
    if not shardman.is_own_ddl() and statement ~* '^create\s.*\mreferences\M' then
        perform shardman.refuse_reference_to_sharded(statement, tg_tag, current_setting('shardman.ddl_path', true));
    end if;
end
$$;
comment on function shardman.on_table_start() is 'before CREATE TABLE, as the cluster''s role: says what PostgreSQL cannot know of tables to which the new one refers';
