"""The keys that sign tokens: made, published, used and retired by all replicas together."""
