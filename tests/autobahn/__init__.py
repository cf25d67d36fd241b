"""Autobahn's cases against the sockets of the gateway."""
