"""Tests of the server's half: values in, values out."""
