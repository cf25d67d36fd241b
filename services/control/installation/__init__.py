"""Functions for operators on people's sessions and on orgs."""
