"""Connect's own conformance suite against the edge: `make conformance`."""
