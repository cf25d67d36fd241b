"""Decisions of the projector: plain values in, plain values out."""
