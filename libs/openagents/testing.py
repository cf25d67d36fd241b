"""Tests of agents without a server: `play` and `play_with_deaths`; with recorded runs: `replay` and `replay_folder`."""

from oa_worker.agents.replays.history import Divergence
from oa_worker.agents.replays.recorded import RecordedRun
from oa_worker.agents.replays.replaying import Replayed, replay, replay_folder
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
