"""The sources of topics, as the gateway uses them."""
