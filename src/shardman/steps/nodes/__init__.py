"""Steps that make a server a node, and unmake it."""
