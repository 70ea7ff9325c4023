-- Where a row lies, for clients in any language: they go straight to the node that has it, and name the partition there.

create or replace function shardman.owner_of(partition regclass) returns table (node int, address text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select n.id, (select shardman.format_connstring(jsonb_object_agg(e.key, e.value))
                    from jsonb_each_text(shardman.parse_connstring(n.connstring)) e where e.key in ('host', 'hostaddr', 'port', 'dbname', 'service'))
      from pg_class c join pg_namespace s on s.oid = c.relnamespace
      join shardman.partitions p on p.part_name = shardman.relation_text(s.nspname, c.relname) and p.prv is null
      join shardman.nodes n on n.id = p.owner
     where c.oid = partition
$$;
comment on function shardman.owner_of(regclass) is
    'the node of the primary of a partition, as this node knows it, and its address: no user, nothing secret. The foreign servers, which everybody may read, say the same';

create or replace function shardman.key_types(parent regclass) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Of an expression what its operator class takes: the same, or text for varchar, with the same hash.
    select array_agg(case when a.attnum is not null then format_type(a.atttypid, null)
                          when t.typtype <> 'p' then format_type(t.oid, null) end order by u.i)
      from pg_partitioned_table p
     cross join unnest(p.partattrs::int2[], p.partclass::oid[]) with ordinality as u (attnum, opclass, i)
      join pg_opclass c on c.oid = u.opclass
      join pg_type t on t.oid = c.opcintype
      left join pg_attribute a on a.attrelid = p.partrelid and a.attnum = u.attnum and u.attnum > 0
     where p.partrelid = parent and p.partstrat = 'h'
$$;
comment on function shardman.key_types(regclass) is 'the types of the key of a sharded table; null for an expression that gives an array. Null when it is no such table';

create or replace function shardman.partition_of(relation text, variadic key text[]) returns table (node int, partition text, address text)
language plpgsql stable set search_path = pg_catalog, pg_temp set datestyle = 'ISO, MDY' set intervalstyle = postgres as $$
declare
    parent constant regclass := shardman.find_relation(shardman.normal_name(relation));
    types  constant text[] := shardman.key_types(parent);
    part   regclass;
begin
    if types is null then
        raise exception '% is no sharded table', relation
            using errcode = 'undefined_table', hint = 'Name one of shardman.tables, with its schema where that is not public.';
    elsif cardinality(types) <> cardinality(key) or array_position(types, null) is not null then
        raise exception 'the key of % is %, and % values were given', relation, pg_get_partkeydef(parent), cardinality(key)
            using errcode = 'invalid_parameter_value', hint = 'Give one value for each column or expression of the key. Keys with expressions that give arrays are not looked up.';
    end if;
    execute format('select c.oid from pg_inherits i join pg_class c on c.oid = i.inhrelid
                     cross join regexp_match(pg_get_expr(c.relpartbound, c.oid), ''modulus (\d+), remainder (\d+)'') as m
                     where i.inhparent = $1 and satisfies_hash_partition($1, m[1]::int, m[2]::int, %s)',
                   (select string_agg(format('$2[%s]::%s', i, t), ', ' order by i) from unnest(types) with ordinality as u (t, i)))
       into part using parent, key;
    return query select o.node, shardman.relation_text(s.nspname, c.relname), o.address
                   from pg_class c join pg_namespace s on s.oid = c.relnamespace left join shardman.owner_of(part) o on true
                  where c.oid = part;
end
$$;
comment on function shardman.partition_of(text, text[]) is
    'the partition of a key, the node that has its primary and that node''s address, as this node knows them. The values of the key as text';

create or replace function shardman.partition_of(relation text, variadic key anyarray) returns table (node int, partition text, address text)
language sql stable set search_path = pg_catalog, pg_temp set datestyle = 'ISO, MDY' set intervalstyle = postgres set extra_float_digits = 3 set bytea_output = hex as $$
    select p.* from shardman.partition_of(relation, variadic array(select k::text from unnest(key) with ordinality as u (k, i) order by i)) as p
$$;
comment on function shardman.partition_of(text, anyarray) is 'the same, for values that are all of one type; others are given as text';
