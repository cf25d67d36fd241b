"""Lost places: a person who has lost one is told nothing more about the runs of the org."""
