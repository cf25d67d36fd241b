"""One call, however it came in: who calls, what handles it, and the gRPC door of all handlers."""
