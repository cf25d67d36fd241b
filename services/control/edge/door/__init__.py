"""The edge over HTTP: connections, bodies, codecs, methods, and what stands around every request."""
