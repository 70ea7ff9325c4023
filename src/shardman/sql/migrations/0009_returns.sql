-- What a node has to set aside is asked all the time, and the journal grows. Only columns that never change: a step's state
-- is still updated without touching an index.
create index on shardman.cmd_steps (cmd_id) where kind = 'returned';
