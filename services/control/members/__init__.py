"""Members of orgs: their roles, and how memberships end."""
