"""Decisions of the gateway: plain values in, plain values out."""
