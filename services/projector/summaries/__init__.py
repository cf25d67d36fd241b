"""Run summaries: one document for each run, projected from its events, told on topics, and read in lists."""
