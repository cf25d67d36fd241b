"""Tests of agents without a server: see `play` and `play_with_deaths`."""

from oa_worker.agents.testing import Played, play, play_with_deaths

__all__ = ["Played", "play", "play_with_deaths"]
