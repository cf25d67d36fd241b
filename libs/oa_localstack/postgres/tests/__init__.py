"""Tests of the PostgreSQL server."""
