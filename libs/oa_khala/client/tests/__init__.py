"""Tests of the client's half: values in, values out."""
