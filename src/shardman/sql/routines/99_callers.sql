-- What users call runs in their sessions, whose settings change what a string or a name means.

do $$
declare
    called text;
begin
    for called in
        select p.oid::pg_catalog.regprocedure
          from pg_catalog.pg_proc p
         where p.pronamespace = 'shardman'::pg_catalog.regnamespace
           and p.proname in ('add_node', 'cancel_cmd', 'create_hash_partitions', 'create_replica', 'drain_node', 'failover',
                             'move_part', 'rebalance', 'rm_node', 'rm_replica', 'set_replevel', 'set_sync',
                             'set_zone', 'suspend_replicas', 'switch_primary')
    loop
        execute pg_catalog.format('alter function %s set standard_conforming_strings = on', called);
        execute pg_catalog.format('alter function %s set quote_all_identifiers = off', called);
        execute pg_catalog.format('alter function %s set array_nulls = on', called);
    end loop;
end
$$;
