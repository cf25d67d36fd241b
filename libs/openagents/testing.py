"""Tests of agents without a server: `play` and `play_with_deaths`; of recorded runs: `replay` and `replay_folder`."""

from oa_worker.agents.history import Divergence
from oa_worker.agents.recorded import RecordedRun
from oa_worker.agents.replaying import Replayed, replay, replay_folder
from oa_worker.agents.testing import Played, play, play_with_deaths

__all__ = [
    "Divergence",
    "Played",
    "RecordedRun",
    "Replayed",
    "play",
    "play_with_deaths",
    "replay",
    "replay_folder",
]
