"""Decisions of the control plane. Plain values in, plain values out: no await, no clock, no chance, no wire types."""
