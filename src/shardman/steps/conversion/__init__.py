"""Steps that build a sharded table beside the plain one, while that is read and written.

The plain table's writes are logged by key. Its rows are copied under one snapshot into the *shadow*, a
sharded table under another name. Then the keys in the log are brought up to date in the shadow, again
and again; the last time is inside the cut-over (cut_over.py). The SQL is in
sql/routines/80_conversion.sql.

Whatever these steps make carries the command's id in its name or hangs on something that does, so that
undoing takes away nothing else.
"""
