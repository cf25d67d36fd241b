"""The archive's records in Postgres, and its objects in a directory or a bucket."""
