"""Use cases of the runtime, and what they need from the store (`ports`)."""
