"""Sessions, and the refresh tokens that keep them alive."""
