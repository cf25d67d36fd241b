"""How a service starts, talks, and stops: the code that the four services share, apart from their own business.

The modules are grouped in rooms; import from the modules. Each room may use those below it:

- `frames`: live frames over a NATS server.
- `process`: start, run, drain; signals.
- `rpc`: gRPC servers and channels.
- `http`, `auth`, `postgres`: an HTTP server and the probes; tokens and who may call what; the database.
- `tls`: certificates, and which connections may do without them.
- `health`: readiness, clocks, failures of what we depend on.
- `telemetry`: logs, metrics, traces.
- `config`: settings from the environment.
- `system`, `tasks`: the clock and new ids; how tasks wait for one another.
"""
