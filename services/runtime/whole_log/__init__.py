"""The log as readers see it: whole, regardless of what was archived."""
