"""The whole stack on one machine: a PostgreSQL of its own and the four services as supervised processes.

`oa_localstack.stack.Stack` is the door; everything else here serves it. Nothing in this package runs in production
deployments: there, an operator brings Postgres, secrets and process supervision.
"""
