"""Incoming web requests, and the API for operators."""
