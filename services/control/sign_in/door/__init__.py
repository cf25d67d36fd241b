"""The sign-in methods, and how codes get to people."""
