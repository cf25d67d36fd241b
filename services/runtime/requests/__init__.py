"""Requests: the questions that a run asks people, their answers, and the defaults that count without an answer."""
