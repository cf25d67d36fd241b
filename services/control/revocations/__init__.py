"""What was revoked, told to every service that takes tokens."""
