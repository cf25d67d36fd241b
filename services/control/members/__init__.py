"""Members of orgs: their roles, and how they come to an end."""
