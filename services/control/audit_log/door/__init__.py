"""How the audit log is asked for: by people of an org at the edge, and by operators on the internal port."""
