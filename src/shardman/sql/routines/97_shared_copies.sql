-- Copies of shared tables are compared, and what differs in one of them is made like the others. No cast of a row to text or back:
-- that may be a function of the table's owner.

create or replace function shardman.shared_row_key(relation text, alias text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('concat(row(%s))', string_agg(alias || '.' || k.col, ', ' order by k.n)) from shardman.shared_key(shardman.find_relation(relation)) k
$$;
comment on function shardman.shared_row_key(text, text) is 'the expression that gives the primary key of a row of a table under this alias as a text';

create or replace function shardman.shared_rows(relation text, buckets int, wanted int[], most int) returns table (key text, hash text)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_trusted(array[shardman.find_relation(relation)]);
    return query execute format('select %s, (%s)::text from only %s as t where %s = any ($1) limit $2', shardman.shared_row_key(relation, 't'),
                                shardman.row_hash(relation, 't'), shardman.find_relation(relation)::regclass, shardman.row_bucket(relation, 't', buckets))
      using wanted, most;
end
$$;
comment on function shardman.shared_rows(text, int, int[], int) is
    'key and hash of the rows in some of the buckets of shardman.content_buckets, so many at most';

create or replace function shardman.dangling_statement(o pg_constraint, taken text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('select exists (select from only %s f where %s and %s and not exists (select from only %s p where %s))', o.conrelid::regclass,
                  string_agg(format('f.%I is not null', a.attname), ' and ' order by n), replace(taken, '<match>',
                  string_agg(format('t.%I operator(%I.%s) f.%I', r.attname, s.nspname, q.oprname, a.attname), ' and ' order by n)), o.confrelid::regclass,
                  string_agg(format('p.%I operator(%I.%s) f.%I', r.attname, s.nspname, q.oprname, a.attname), ' and ' order by n))
      from unnest(o.conkey, o.confkey, o.conpfeqop) with ordinality as u (f, p, op, n)
      join pg_attribute a on a.attrelid = o.conrelid and a.attnum = u.f
      join pg_attribute r on r.attrelid = o.confrelid and r.attnum = u.p
      join pg_operator q on q.oid = u.op join pg_namespace s on s.oid = q.oprnamespace
$$;
comment on function shardman.dangling_statement(pg_constraint, text) is
    'asks whether rows refer to nothing by a foreign key; taken: the condition which rows, f, are looked at, with <match> for those that refer to a row t';

create or replace function shardman.take_shared_rows(relation text, keys text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    rel constant regclass := shardman.table_itself(relation);
begin
    execute format('create temp table shardman_taken on commit drop as select t.* from only %s as t where %s = any ($1)', rel, shardman.shared_row_key(relation, 't'))
      using keys;
    delete from shardman.replaced_rows r where r.replaced_at < clock_timestamp() - interval '30 days';
    execute 'insert into shardman.replaced_rows (relation, content) select $1, concat(t.*) from pg_temp.shardman_taken as t' using relation;
    execute format('delete from only %s as t where %s = any ($1)', rel, shardman.shared_row_key(relation, 't')) using keys;
end
$$;
comment on function shardman.take_shared_rows(text, text[]) is
    'in a transaction that holds the locks of a shared table and is a replica''s: takes rows out of the copy here, and keeps them as text';

create or replace function shardman.need_nothing_dangling(relation text, keys text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    rel    constant oid := shardman.find_relation(relation);
    o      pg_constraint;
    broken bool;
begin
    for o in select c.* from pg_constraint c where c.contype = 'f' and rel in (c.conrelid, c.confrelid)
                and not exists (select from pg_class p where p.oid = c.conrelid and p.relkind <> 'r') loop
        broken := false;
        perform shardman.need_plain_comparison(o.oid);
        perform shardman.need_trusted(array[o.conrelid, o.confrelid]);
        if o.confrelid = rel then
            execute shardman.dangling_statement(o, 'exists (select from pg_temp.shardman_taken t where <match>)') into broken;
        end if;
        if o.conrelid = rel and not broken then
            execute shardman.dangling_statement(o, shardman.shared_row_key(relation, 'f') || ' = any ($1)') into broken using keys;
        end if;
        if broken then
            raise exception 'rows of % would refer to nothing by %', shardman.metadata_name(o.conrelid), quote_ident(o.conname) using errcode = 'SHM13',
                hint = 'See which copy is right, and put the rows right by hand.';
        end if;
    end loop;
end
$$;
comment on function shardman.need_nothing_dangling(text, text[]) is
    'behind take_shared_rows, when others have been put in: raises where rows of this node refer to what is not there';

create or replace function shardman.note_shared_comparison(relation_ text, node_ int, with_ int, rows_ bigint, differing_ bigint, why text, was_mended bool) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.shared_comparisons c where not exists (select from shardman.shared_copies s where (s.relation, s.node) = (c.relation, c.node));
    insert into shardman.shared_comparisons as c (relation, node, compared_with, rows, differing, unmended, last_difference, mended_at)
    values (relation_, node_, with_, rows_, case when was_mended then 0 else differing_ end, why,
            case when differing_ > 0 then clock_timestamp() end, case when was_mended then clock_timestamp() end)
    on conflict (relation, node) do update
       set compared_with = excluded.compared_with, compared_at = clock_timestamp(), rows = excluded.rows, differing = excluded.differing, unmended = excluded.unmended,
           last_difference = coalesce(excluded.last_difference, c.last_difference), mended_at = coalesce(excluded.mended_at, c.mended_at)
$$;
comment on function shardman.note_shared_comparison(text, int, int, bigint, bigint, text, bool) is
    'lord only: remembers what the comparison of a copy of a shared table with another one has found';
