"""Retention classes: when runs leave the log, and how far that is behind."""
