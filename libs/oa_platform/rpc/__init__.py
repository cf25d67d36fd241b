"""gRPC: servers, channels to other services, and what happens around every call."""
