"""The workers of each org, on its topic: how each stands, and the runs that it holds."""
