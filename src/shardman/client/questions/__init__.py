"""Questions to several partitions: each node answers for its own, and PostgreSQL puts the answers together."""
