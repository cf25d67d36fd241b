"""One file a question, each runnable alone: `python -m benchmarks.<name>`."""
