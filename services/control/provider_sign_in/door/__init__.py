"""The API, and the clients of the providers."""
