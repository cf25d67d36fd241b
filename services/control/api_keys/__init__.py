"""API keys: how programs sign in, for a service account or for a person."""
