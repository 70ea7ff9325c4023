"""Steps that make a sharded table a plain one of a node again, while it is read and written.

All its partitions go to that node first, by moves. There their writes are logged by key; their rows are copied
under one snapshot into the *shadow*, a plain table under another name; then the keys in the log are brought up
to date in the shadow, again and again; the last time is inside the cut-over (cut_over.py). The SQL is in
sql/routines/83_unsharding.sql.

Whatever these steps make carries the command's id in its name or hangs on something that does, so that undoing
takes away nothing else.
"""
