"""Places that were lost: whoever had one is told nothing more of the runs that belong to the org."""
