"""Wire <-> domain: what the control services do with a message, the gRPC door, and the services behind control."""
