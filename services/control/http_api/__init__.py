"""The public edge: the Connect unary protocol over HTTP/1.1. No decisions."""
