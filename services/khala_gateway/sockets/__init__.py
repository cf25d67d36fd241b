"""Sockets: the WebSocket port."""
