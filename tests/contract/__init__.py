"""The contracts: their gates, and that independent decoders agree on what is on the wire."""
