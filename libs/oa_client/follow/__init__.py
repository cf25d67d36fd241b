"""Following a topic: first its stored elements, then new ones, live.

updates       the updates of a followed topic (pure)
subscription  drives `oa_khala.client.session` over a socket and a store
holdings      what one subscription holds in its store, which other processes may share
items         the items that following a run shows, made from stored and new elements (pure)
run_tail      follows a run to its end
"""
