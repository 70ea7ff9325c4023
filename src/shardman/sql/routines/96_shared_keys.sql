-- Another primary key of a shared table. Its rows are found by it on other nodes, so it is never without one; within a transaction it may be,
-- for whoever changes it drops the one and adds the other. When the transaction ends the key is there, or it fails.

create or replace function shardman.drops_from(query text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(shardman.plain_words(query) ~* '^alter\s+table\s.*\mdrop\M', false)
$$;
comment on function shardman.drops_from(text) is 'whether an ALTER TABLE drops something, which may be a key or a column of one';

create or replace function shardman.loosen_key(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    busy constant text := coalesce(current_setting('shardman.ddl_busy', true), '');
begin
    perform shardman.need_owner(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    if exists (select from pg_trigger g where g.tgrelid = shardman.find_relation(shardman.called_here(relation)) and g.tgname = 'A_shardman_key') then
        execute format('drop trigger "A_shardman_key" on %s', shardman.name_here(relation));
    end if;
    perform set_config('shardman.ddl_busy', busy, true);
end
$$;
comment on function shardman.loosen_key(text) is
    'within DDL, for the owner of a shared table: takes away the trigger that names the key''s columns, which could not be dropped; shardman.keep_shared makes it again';

create or replace function shardman.names_other_key(rel oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (
        select from pg_trigger g join pg_index i on i.indrelid = rel and i.indisprimary
         where g.tgrelid = rel and g.tgname = 'A_shardman_key'
           and array(select distinct d.refobjsubid::int2 from pg_depend d
                      where d.classid = 'pg_trigger'::regclass and d.objid = g.oid and d.refclassid = 'pg_class'::regclass and d.refobjid = rel and d.refobjsubid > 0 order by 1)
               <> array(select k from unnest((i.indkey::int2[])[:i.indnkeyatts - 1]) k order by 1))
$$;
comment on function shardman.names_other_key(oid) is 'whether the trigger by which changed keys of a shared table are sent looks at columns that are not its key';

create or replace function shardman.note_keyless(relation text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    insert into shardman.keyless_tables values (shardman.find_relation(relation), relation) on conflict do nothing
$$;
comment on function shardman.note_keyless(text) is 'within DDL: a shared table has no primary key just now, and is to have one when the transaction ends';

create or replace function shardman.need_keys_again() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from shardman.keyless_tables k where k.rel = new.rel;
    if exists (select from pg_class c where c.oid = new.rel) and not shardman.has_primary_key(new.rel) then
        raise exception '% has no primary key, by which other nodes would find its rows', new.relation
            using errcode = 'feature_not_supported', hint = format('Send ALTER TABLE %s ADD PRIMARY KEY (...) in the same transaction.', new.rel::regclass);
    end if;
    return null;
end
$$;
comment on function shardman.need_keys_again() is 'before the end of a transaction: raises where it leaves a shared table without a primary key';

do $$
begin
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'shardman.keyless_tables'::regclass and tgname = 'ends') then
        create constraint trigger ends after insert on shardman.keyless_tables deferrable initially deferred
            for each row execute function shardman.need_keys_again();
    end if;
end
$$;
