"""The services behind control."""
