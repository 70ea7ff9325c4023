"""move_part(part, dest, src): moves a copy of a partition to another worker while it is in use.

What it guarantees is in docs/commands/move_part.md; how, in steps/fence.py.
"""
