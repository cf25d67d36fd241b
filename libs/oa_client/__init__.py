"""The client core: signing in, commands, following topics and proving runs, for every surface (CLI, browser, desktop,
mobile).

Its parts, each built on those below it:

    sdk/          the package that programs import as `openagents`: a client that starts runs and follows them
    cpython/      network and storage on CPython: httpx, websockets, files, SQLite
    client        all parts combined for one site (one control URL)
    proofs/       proofs of a run: receipts, trusted keys, the log of receipts, artifacts
    follow/       following a topic, and a run to its end
    edge/         the public edge: calls, signing in, commands
    transport     the network that the core needs, as small Protocols
    core/         plain values and decisions: models, applied logs, the rule that every store follows. Pure

Everything except `sdk` and `cpython` works on every surface: it uses no network library, no file and no path. A surface
other than CPython needs only its own replacement for `cpython`.
"""
