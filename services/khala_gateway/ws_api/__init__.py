"""Sockets: the WebSocket door."""
