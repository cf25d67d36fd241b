"""The keys that sign tokens: made, published, used and let go by all replicas together."""
