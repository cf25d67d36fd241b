"""Khala, the sync protocol, both sides of it and without I/O.

Values and bytes go in, values and bytes come out: no socket, no clock, no randomness, no await. Whoever drives a
session passes the time as `now_ms` and carries out the commands that it returns.

    topics          the grammar of topics, and what each class of topic needs
    cursors         where a subscription starts: a table over cursor, epoch, floor and head
    feed            one topic in a gateway: ring, holes, repair
    admission       what a sync token grants
    server_session  one connection, seen by the gateway
    client_session  one client, across any number of connections; `client_states` is the table of its states, and
                    `client_connection`, `client_tokens`, `client_deadlines`, `client_subscriptions` and
                    `client_topics` are its parts
    frames          the values of all frames
    wire            frames <-> bytes; the only module that knows the generated types
"""
