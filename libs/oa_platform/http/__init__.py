"""HTTP inside a service's process: a server for an ASGI application, and the probes."""
