"""Steps that give a sharded table more or fewer partitions, while it is read and written.

Each node that has copies of partitions, primaries or replicas, makes the new ones of its own old ones, beside
them. Writes meanwhile are logged by key and brought up to date, the last time inside the cut-over
(cut_over.py), in which all nodes exchange all partitions. The SQL is in sql/routines/82_split.sql.
"""
