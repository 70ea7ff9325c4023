"""A page that shows a cluster: a client like any other, with the rights of whoever looks.

It keeps nothing but sessions of viewers and the curves of the last hour, in memory; nothing stops without it.
"""
