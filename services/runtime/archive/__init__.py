"""The archive: finished runs are moved there as artifacts, and read back."""
