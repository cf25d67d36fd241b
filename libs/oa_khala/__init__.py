"""Khala, the sync protocol: both sides of it, without I/O.

Values and bytes go in, values and bytes come out: no socket, no clock, no randomness, no await. The
driver of a session passes the time as `now_ms` and carries out the commands that the session returns.

    topics    the grammar of topics, and what each class of topic needs
    grants    what a sync token opens
    cursors   where a subscription starts, from a table over cursor, epoch, floor and head
    feed      one topic in a gateway: ring, holes, repair
    frames    the values of all frames
    wire      frames <-> bytes, regardless of what events hold
    readable  frames as people read them: the only module that opens what events hold
    server    one connection as the gateway sees it
    client    one client, across any number of connections
"""
