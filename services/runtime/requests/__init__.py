"""Requests: what a run asks people, who answers, and what counts when nobody does."""
