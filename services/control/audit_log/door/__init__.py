"""The services that read the audit log: for people of an org at the edge, for operators on the internal port."""
