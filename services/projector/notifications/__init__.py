"""Notifications: what a person is told of the runs that they started, on a topic of their own."""
