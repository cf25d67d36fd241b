"""Live frames over a NATS server, once for all gateways."""
