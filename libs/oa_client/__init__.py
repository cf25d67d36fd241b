"""The client core: signing in, commands, and following topics, for every surface (CLI, browser, desktop, mobile).

The core knows no network library: what it needs of the world are the small Protocols of `transport` and the stores.
`oa_client.cpython` has the ones for CPython (httpx, websockets, files, SQLite); a browser brings others.

    edge          the public HTTP edge: Connect unary calls, errors as Refusals
    commands      what a person can ask for, typed
    models        what comes back, as plain values
    auth          signing in, staying signed in (one refresh at a time)
    store         the watermark store: state and cursor persisted in one step
    subscription  drives `oa_khala.client_session` over a socket
    log           what has been applied of a run: counts, chain head, text
    pins          receipt keys, trusted on first use
    client        all of it put together for one site (one control URL)
    cpython/      transports and stores of CPython
"""
