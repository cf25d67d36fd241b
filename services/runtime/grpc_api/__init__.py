"""The runtime's doors: wire <-> values. No decisions."""
