"""Workers and leases in Postgres."""
