"""One file a question: `python -m benchmarks.<name>`. A table for people; with `--json FILE` the figures."""
