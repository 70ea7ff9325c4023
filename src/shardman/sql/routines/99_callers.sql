-- What users call runs in their sessions, whose settings change what a string or a name means: every function that submits
-- something, found by that, and those of event triggers, but for the one that keeps the settings. One that has the settings already
-- was not laid a moment ago, for that takes them off: it is of another version. It must stay untouched, for by that it is known and
-- dropped (shardman.pg.routines).

do $$
declare
    called text;
begin
    for called in
        select p.oid::pg_catalog.regprocedure
          from pg_catalog.pg_proc p
         where p.pronamespace = 'shardman'::pg_catalog.regnamespace
           and (p.proname = 'cancel_cmd' or pg_catalog.strpos(p.prosrc, 'return shardman.submit(') > 0
                or p.prorettype = 'pg_catalog.event_trigger'::pg_catalog.regtype and p.proname <> 'ddl_path')
           and not coalesce(p.proconfig, '{}') @> array['standard_conforming_strings=on', 'quote_all_identifiers=off', 'array_nulls=on']
    loop
        execute pg_catalog.format('alter function %s set standard_conforming_strings = on', called);
        execute pg_catalog.format('alter function %s set quote_all_identifiers = off', called);
        execute pg_catalog.format('alter function %s set array_nulls = on', called);
        -- What PostgreSQL writes of a catalog's expression by these is read again here and elsewhere.
        execute pg_catalog.format('alter function %s set datestyle = ''ISO, MDY''', called);
        execute pg_catalog.format('alter function %s set intervalstyle = postgres', called);
        execute pg_catalog.format('alter function %s set extra_float_digits = 1', called);
        execute pg_catalog.format('alter function %s set transform_null_equals = off', called);
    end loop;
end
$$;

-- What a catalog has is told in the same words whoever asks: it is compared with what another node, or another session, has told.
do $$
declare
    telling text;
begin
    for telling in
        select p.oid::pg_catalog.regprocedure
          from pg_catalog.pg_proc p
         where p.pronamespace = 'shardman'::pg_catalog.regnamespace and p.proname <> 'partition_of'
           and p.prosrc operator(pg_catalog.~) '\mpg_get_(expr|constraintdef|indexdef|statisticsobjdef_columns|triggerdef|ruledef|functiondef|viewdef)\M'
           and p.prosrc operator(pg_catalog.!~) '\mexecute\M' and not coalesce(p.proconfig, '{}') @> array['TimeZone=UTC']
    loop
        execute pg_catalog.format('alter function %s set timezone = ''UTC''', telling);
        execute pg_catalog.format('alter function %s set datestyle = ''ISO, MDY''', telling);
        execute pg_catalog.format('alter function %s set intervalstyle = postgres', telling);
        execute pg_catalog.format('alter function %s set extra_float_digits = 1', telling);
    end loop;
end
$$;
