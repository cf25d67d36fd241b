"""What operators can see and do about people's sessions and about orgs."""
