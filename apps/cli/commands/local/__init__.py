"""What runs on this machine: the stack, workers, Codex, the demo."""
