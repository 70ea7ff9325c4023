alter table shardman.lease add column suspicion text;
comment on column shardman.lease.suspicion is
    'why the shardlord does nothing about silent nodes: so many are silent that its own network is suspected; null when it is not';
