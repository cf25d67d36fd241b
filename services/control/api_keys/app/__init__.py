"""What is done with API keys, and when they were used."""
