"""The workers of each org on the org's topic: the state of each, and the runs that it holds."""
