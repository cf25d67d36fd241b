"""Topics: the events of each run, for readers who follow it."""
