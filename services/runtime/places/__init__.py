"""Lost places: people and accounts without a place start nothing more, and the runs of a deleted org end."""
