"""Seeded simulations: our own code on virtual time, in a world that cuts, loses, repeats, reorders and restarts.

    python -m tests.simulation --seeds 10000

A seed decides everything that happens, so a failure is repeated by naming it: `--from SEED --seeds 1`.
"""
