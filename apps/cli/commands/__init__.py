"""The commands. Each module registers its own when it is loaded, and `program` loads the one that is called for."""
