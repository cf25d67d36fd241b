"""The runtime: the authority of runs and their log."""
