"""Where people work together, and what they did there."""
