"""Sources: the services that topics come from, as the gateway sees them."""
