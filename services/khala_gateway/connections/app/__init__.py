"""Everything that happens on a connection, from the handshake to the close."""
