-- What a channel delivers is whole only when no beat is missing in it.

create table shardman.beat_gaps (
    src     int primary key,
    last    bigint not null,
    next    bigint not null,
    seen_at timestamptz not null default clock_timestamp()
);
revoke all on shardman.beat_gaps from public;
comment on table shardman.beat_gaps is
    'this node only: channels from which a beat is missing. Somebody else, a copy of this node''s files say, has taken it from the slot, '
    'with all that was written at that time';
comment on column shardman.beat_gaps.src is 'the channel''s source';
comment on column shardman.beat_gaps.last is 'the last beat before the gap';
comment on column shardman.beat_gaps.next is 'the beat that arrived instead of the next one';
comment on column shardman.beat_gaps.seen_at is 'when that was; the row goes when the channel is made anew';
comment on column shardman.beats.beat is 'the number of the beat: one more than that of the one before. The first is the time, in milliseconds since 1970';
