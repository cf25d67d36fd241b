"""A worker for a container: the exec adapter, configured by its environment."""
