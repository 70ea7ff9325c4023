"""Where a statement goes: to the one node that has its rows, where that is certain.

`picture` knows the tables, `analysis` reads a statement once for all, `plan` and `choice` say of its
parameters where they lead. Nothing here talks to a server.
"""
