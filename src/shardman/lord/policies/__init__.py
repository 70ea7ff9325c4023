"""What the watchers decide, without I/O: what was seen, and when, goes in; what is to be done comes out.

Time is an argument everywhere: seconds by one clock that never goes back.
"""
