"""Who may do what: scopes, roles, and the gate that every call goes through."""
