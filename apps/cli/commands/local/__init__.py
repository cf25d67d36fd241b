"""Commands that run something on this machine: the stack, workers, Codex, the demo."""
