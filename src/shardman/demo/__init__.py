"""`shardman demo`: a cluster, a real table, partitions that move under load. `story` is the plot."""
