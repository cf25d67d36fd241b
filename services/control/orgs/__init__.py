"""People, their orgs and their memberships."""
