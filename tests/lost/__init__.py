"""Workers whose authority comes and goes: a seeded model on virtual time, and a network that parts in two."""
