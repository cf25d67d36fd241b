"""Notifications: what a person is told about the runs that they started, on their own topic."""
