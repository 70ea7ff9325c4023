-- The fencing epoch (guarantee: at most one shardlord acts). A shardlord names its epoch first thing in
-- every session; a node that has seen a newer one refuses it. Raising the epoch ends the sessions of
-- older shardlords, so a session that is admitted stays legitimate for as long as it lives.

create or replace function shardman.admit(cluster_ text, epoch_ bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    here shardman.local;
begin
    select * into here from shardman.local for update;
    if here.cluster is distinct from cluster_ then
        raise exception 'this database belongs to %, not to cluster %', coalesce('cluster ' || here.cluster, 'no cluster'), cluster_
            using errcode = 'SHM02';
    elsif shardman.is_copy() then
        raise exception 'this database is a copy of node % of cluster %', here.node_id, here.cluster
            using errcode = 'SHM07', hint = 'See shardman.is_copy.';
    elsif here.epoch > epoch_ then
        raise exception 'epoch % is over, the shardlord with epoch % acts', epoch_, here.epoch using errcode = 'SHM01';
    elsif here.epoch < epoch_ then
        update shardman.local set epoch = epoch_;
        perform shardman.end_older_lords(epoch_);
    end if;
end
$$;
comment on function shardman.admit(text, bigint) is
    'called by a shardlord first thing in every session; raises SHM01 when its epoch is over, SHM02 when the node is not of its cluster, '
    'SHM07 when it is a copy of one';

create or replace function shardman.end_older_lords(epoch_ bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tries int := 0;
begin
    loop
        perform pg_terminate_backend(pid)
           from pg_stat_get_activity(null)
          where case when application_name ~ '^shardman lord [0-9]{1,18}( |$)'
                     then split_part(application_name, ' ', 3)::bigint < epoch_ end
            and datid = (select oid from pg_database where datname = current_database())
            and pid <> pg_backend_pid();
        exit when not found;
        tries := tries + 1;
        if tries > 200 then
            raise exception 'the sessions of an older shardlord do not end' using errcode = 'lock_not_available';
        end if;
        perform pg_sleep(0.01);
        -- Otherwise a transaction sees the same sessions again and again.
        perform pg_stat_clear_snapshot();
    end loop;
end
$$;
comment on function shardman.end_older_lords(bigint) is 'terminates every session of a shardlord with an older epoch and waits for its end';
