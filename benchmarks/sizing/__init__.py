"""What does each service cost, idle, for a connection, a worker, a run and an event?

    python -m benchmarks.sizing [--only NAME] [--json FILE] [--connections 500] [--runs 200] …

The four real services on a real, durable PostgreSQL, started as by `oa up` and measured from outside with psutil: CPU
time and resident memory of their processes. The cost of each idle service is measured first, and is not part of the CPU
of anything else. Floors are measured in the same run. The rows are those of docs/operations/scaling.md, in its form.
"""
