"""What a cluster is doing, as numbers for Prometheus: a client like any other, with the rights of its role."""
