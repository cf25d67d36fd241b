"""Feeds: each topic that somebody subscribes to is held once, and read from its source once for all."""
