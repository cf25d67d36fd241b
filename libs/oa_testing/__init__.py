"""Support for tests: databases in milliseconds, a clock that tests control, a network that breaks on request.

- `suite`: for a run of pytest. `peers`: servers and programs that the project talks to, real or stand-ins.
- `postgres`: databases. `cluster`: the data with which a stack begins. `stack`: a whole stack. `clock`: clocks.
- `waiting`, `locks`: waiting for what must happen.
- `fork_server`: Python processes that start fast. `processes`: others.
- `metrics`: the value of a metric. `plain_http`: HTTP without TLS.
- `temporary`: files that all sessions share.
"""
