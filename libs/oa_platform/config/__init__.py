"""Settings: read from the environment once, at start, and checked; every variable with its default and its unit."""
