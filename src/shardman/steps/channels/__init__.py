"""Steps on channels: one publication, slot and subscription for each ordered pair of nodes.

A channel from node i to node j carries the writes to every partition that has its primary on i and a
replica on j. A table is *registered* in it with a filter that lets nothing through, and is switched in
(or out) by changing the publication: that is transactional and exact in the WAL, so it can be done
inside a cut-over. No subscription is altered while locks are held.
"""
