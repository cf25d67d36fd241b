"""Feeds: each topic that has subscribers is held once, and read from its source once for all of them."""
