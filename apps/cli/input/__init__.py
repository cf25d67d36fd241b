"""What a person types, and what a program reads that takes it."""
