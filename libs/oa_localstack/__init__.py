"""The whole stack on one machine: a PostgreSQL of its own and the four services as supervised processes.

`lifecycle` runs a stack, stops one and removes one; `stack` is the stack itself. Below them: `services` (a service as a
process), `installation` (ports, secrets, environments and the state file), `postgres` (the server), `processes`
(children that don't outlive us), `settings`, and `files` (files that are written as a whole).
Nothing in this package runs in production deployments: there, an operator provides Postgres, secrets and process
supervision.
"""
