"""The commands. Each module registers its commands when it is loaded, and `program` loads the one that is needed."""
