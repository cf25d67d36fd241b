"""The API, and the providers themselves."""
