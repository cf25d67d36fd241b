"""Whether the database still has what clients have been told, and a new epoch for the journal if it has not."""
