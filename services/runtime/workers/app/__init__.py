"""Management of workers: what they ask for, the notices that they get, and their loss."""
