"""The edge over HTTP: connections, bodies, codecs, methods, and the middleware around every request."""
