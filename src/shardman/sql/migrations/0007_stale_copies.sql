alter table shardman.partitions add column stale_since timestamptz;
comment on column shardman.partitions.stale_since is
    'since when the copy has not followed its primary: it may lack later writes, is not promoted and not waited for; null on one that follows';
