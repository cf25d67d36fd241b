"""One file per question: `python -m benchmarks.<name>` prints a table; `--json FILE` also writes the figures."""
