"""khala_gateway: delivers topics to clients over WebSocket."""
