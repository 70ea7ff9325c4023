create table shardman.beats (
    src  int primary key,
    beat bigint not null default 0
);
revoke all on shardman.beats from public;
comment on table shardman.beats is
    'a row of this node, and one of each node from which a channel comes here: a beat that is written there arrives here '
    'through the channel, or the channel does not deliver';
comment on column shardman.beats.src is 'the node that writes it; each channel lets through the row of its own source alone';
comment on column shardman.beats.beat is 'grows with each beat: milliseconds since 1970 by the clock of src when it was written';
