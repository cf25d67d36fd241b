"""What operators see and do of people's sessions, and of orgs."""
