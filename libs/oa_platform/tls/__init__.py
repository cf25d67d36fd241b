"""TLS: certificates that are read again when their files change, and where a connection may go without them."""
