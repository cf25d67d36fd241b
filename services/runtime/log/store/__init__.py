"""The log in Postgres, and how replicas hear of each other."""
