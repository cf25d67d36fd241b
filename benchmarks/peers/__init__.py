"""The systems that we measure ourselves against, each set up as its own documentation says."""
