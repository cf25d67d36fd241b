"""Invitations into orgs, by e-mail."""
