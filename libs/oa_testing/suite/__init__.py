"""How a run of pytest goes: fixtures, the order of modules, what is skipped, and what is said at the end."""
