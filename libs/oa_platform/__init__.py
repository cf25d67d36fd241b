"""How a service starts, talks, and stops: what the four services have in common and what is no business of theirs.

Import from the modules, which stand in rooms. Each room may use those below it:

- `frames`: live frames over a NATS server.
- `process`: start, run, drain; signals.
- `rpc`: gRPC servers and channels.
- `http`, `auth`, `postgres`: an HTTP server and the probes; tokens and who may call what; the database.
- `tls`: certificates, and where there may be none.
- `health`: readiness, clocks, failures of what is below us.
- `telemetry`: logs, metrics, traces.
- `config`: settings from the environment.
- `system`: the clock and new ids.
"""
