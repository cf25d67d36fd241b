"""Which side answers a web request: the split, its canaries, and maintenance."""
