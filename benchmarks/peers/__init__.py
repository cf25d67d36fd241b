"""The systems against which we measure ourselves, each set up according to its own documentation."""
