"""Recorded histories: what earlier releases stored, and what it led to. See docs/protocol/histories.md.

- `history`: the file format. `check`: replays a history with today's code.
- `stories`: the runs that are recorded of each release, driven by `teller`. `workers`: the same for workers.
- `record`: writes the files that are missing, and takes in runs of a real deployment.
"""
