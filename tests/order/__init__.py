"""Whether a log keeps its order while everything around it goes wrong."""
