"""The whole stack on one machine: a PostgreSQL of its own and the four services as supervised processes.

`oa_localstack.stack.Stack` is the entry point. Below it: `services` (a service as a process), `installation` (ports,
secrets, environments and the state file), `postgres` (the server), `processes` (children that don't outlive us).
Nothing in this package runs in production deployments: there, an operator provides Postgres, secrets and process
supervision.
"""
