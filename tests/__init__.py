"""What crosses rooms. Tests of one room stand beside it."""
