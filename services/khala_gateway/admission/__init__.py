"""Admission: which handshakes are let in, and what a sync token opens."""
