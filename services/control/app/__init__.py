"""Use cases: what happens when a request arrives. Owns the Protocols that `store` and `outbound` implement."""
