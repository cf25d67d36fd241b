"""Calls, over either transport: the caller, the handler, and the gRPC door of all handlers."""
