"""Keeping what is derived up with runtime's log: followed without a hole, each entry applied once."""
