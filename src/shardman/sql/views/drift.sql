create or replace view shardman.drift as
    select p.subject, p.message as problem, p.since, null::text as hint from shardman.problems p;
comment on view shardman.drift is 'this node: where it differs from the metadata';
