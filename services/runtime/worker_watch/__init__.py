"""How workers stand and what they hold, told to the services that derive from it."""
