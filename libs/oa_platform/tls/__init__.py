"""TLS: certificates that are read again when their files change, and which connections may do without them."""
