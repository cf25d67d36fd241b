"""The use cases of API keys, and when keys were used."""
