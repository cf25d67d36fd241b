"""Control: people, sessions, orgs, tokens and keys, and the public HTTP edge."""
