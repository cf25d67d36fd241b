"""Runs that were recorded, and today's code against them."""
