"""Tests of the worker that runs by itself."""
