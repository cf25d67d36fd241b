"""Threads: a run that interrupts the older ones of its thread."""
