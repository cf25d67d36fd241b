"""The runs that a worker holds: their slots, their execution, and their appends."""
