"""Run summaries: one document for each run, projected from its events, published on topics, and read in lists."""
