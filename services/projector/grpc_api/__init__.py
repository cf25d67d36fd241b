"""The projector's doors: wire <-> domain, and no decisions."""
