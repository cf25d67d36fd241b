"""Web requests in, and what operators call."""
