"""Tests of the projection."""
