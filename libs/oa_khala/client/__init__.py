"""The client's half: one client across any number of connections, and what it asks of its driver."""
