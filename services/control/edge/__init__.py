"""The public HTTP edge: Connect unary calls, served here or forwarded to the service that owns the method."""
