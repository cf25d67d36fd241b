"""The log: written in batches by one sequencer, followed without a hole, served to other services."""
