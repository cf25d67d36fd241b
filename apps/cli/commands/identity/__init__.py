"""Who somebody is, and where they are signed in."""
