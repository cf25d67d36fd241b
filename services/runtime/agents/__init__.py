"""Agents: the inputs and results that workers state for their adapters, and the check of new runs' inputs."""
