"""Pages of the whole log, and the artifacts that they need."""
