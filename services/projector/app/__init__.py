"""What the projector does: tail the log, serve topics, answer reads."""
