"""What control's tokens say, and how they are signed and verified."""
