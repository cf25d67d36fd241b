"""Admission: which handshakes are admitted, and what a sync token opens."""
