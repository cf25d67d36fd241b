"""Whether a process can do its work: readiness, the clocks it depends on, and failures of what it depends on."""
