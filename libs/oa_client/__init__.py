"""The client core: signing in, commands, following topics and proving runs, for every surface (CLI, browser, desktop,
mobile).

Its rooms, each on top of those below it:

    sdk/          what programs import as `openagents`: a client that starts runs and follows them
    cpython/      what the core needs from outside, for CPython: httpx, websockets, files, SQLite
    client        all of it put together for one site (one control URL)
    proofs/       what proves a run: receipts, trusted keys, the log of receipts, artifacts
    follow/       following a topic, and a run to its end
    edge/         the public edge: calls, signing in, commands
    transport     what is needed of the network: small Protocols
    core/         plain values and decisions: models, what has been applied, the rule of every store. Pure

All but `sdk` and `cpython` is for every surface: no network library, no file, no path. A browser brings another
`cpython`.
"""
