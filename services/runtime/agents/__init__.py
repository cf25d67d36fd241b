"""Agents: what workers say that their adapters take and give, and the inputs of new runs held against it."""
