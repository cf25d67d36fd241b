"""WebSocket on one side, whole messages on the other."""
