"""The adapters, which execute runs: one folder for each."""
