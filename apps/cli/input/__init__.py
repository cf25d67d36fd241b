"""What a person types, and the standard input of a run's command."""
