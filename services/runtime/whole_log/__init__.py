"""The log as readers see it: whole, whatever of it was archived."""
