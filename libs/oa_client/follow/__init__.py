"""Following a topic: what is stored of it, then what comes, live.

updates       what happens to a topic that is followed (pure)
subscription  drives `oa_khala.client.session` over a socket and a store
items         what following a run shows, decided from what is stored and what comes (pure)
run_tail      follows a run to its end
"""
