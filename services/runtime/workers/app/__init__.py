"""Looking after workers: what they ask, what they are told, and when they are lost."""
