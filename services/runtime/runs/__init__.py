"""Runs: created, shown and canceled by people."""
