"""Settings: those that have to go together, and that each becomes the limit of the same name."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oa_platform.auth.keys import SigningKey, dump_key
from oa_platform.config.parsers import Secret
from oa_runlog.authority.limits import RunLimits
from oa_testing.postgres import Database
from oa_topics.store import TopicLimits
from services.runtime.archive.limits import ArchiveLimits, ArtifactLimits
from services.runtime.archive_settings import ArchiveSettings, ArtifactCacheSettings, ArtifactSettings
from services.runtime.config import (
    MergeSettings,
    ReplaySettings,
    RequestSettings,
    RunSettings,
    SequencerSettings,
    TailSettings,
    TopicSettings,
    WorkerSettings,
)
from services.runtime.log.limits import SequencerLimits, TailLimits
from services.runtime.receipts.limits import MergeLimits
from services.runtime.replays.limits import ReplayLimits
from services.runtime.requests.limits import RequestLimits
from services.runtime.retention.domain import KEEP_ALL
from services.runtime.schedule_settings import ScheduleSettings
from services.runtime.schedules.limits import ScheduleLimits
from services.runtime.tests.rig import receipt_pem, runtime_settings
from services.runtime.whole_log.limits import ArtifactCacheLimits
from services.runtime.workers.limits import WorkerLimits


def test_the_pool_has_connections_left_beside_the_writers(runtime_database: Database) -> None:
    settings = runtime_settings(runtime_database)
    writers = settings.sequencer.writers

    def wrong(pool_max: int) -> list[str]:
        changed = replace(settings, database=replace(settings.database, pool_max=pool_max))
        return [variable for variable, _ in changed.problems()]

    assert wrong(writers + 2) == []
    assert wrong(writers + 1) == ["OA_DATABASE_POOL_MAX"]


def test_a_previous_receipt_key_is_another_key(runtime_database: Database) -> None:
    settings = runtime_settings(runtime_database)

    def wrong(pem: str) -> list[str]:
        return [variable for variable, _ in replace(settings, previous_receipt_key=Secret(pem)).problems()]

    assert wrong(receipt_pem()) == []
    assert wrong(settings.receipt_key.reveal()) == ["OA_PREVIOUS_RECEIPT_KEY"]
    assert wrong(f"a remark\n{settings.receipt_key.reveal()}") == ["OA_PREVIOUS_RECEIPT_KEY"]
    assert wrong("no key") == ["OA_PREVIOUS_RECEIPT_KEY"]


def test_a_previous_receipt_key_that_could_be_guessed_endorses_nothing_in_production(
    runtime_database: Database,
) -> None:
    seed = Ed25519PrivateKey.from_private_bytes(b"ab" * 16)
    weak = replace(runtime_settings(runtime_database), previous_receipt_key=Secret(dump_key(SigningKey("", seed))))
    assert [variable for variable, _ in weak.production_problems()] == ["OA_PREVIOUS_RECEIPT_KEY"]


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        (SequencerSettings(), SequencerLimits()),
        (TailSettings(), TailLimits()),
        (WorkerSettings(), WorkerLimits()),
        (RequestSettings(), RequestLimits()),
        (ScheduleSettings(), ScheduleLimits()),
        (MergeSettings(), MergeLimits()),
        (ReplaySettings(), ReplayLimits()),
        (ArtifactSettings(), ArtifactLimits()),
        (ArchiveSettings(), ArchiveLimits()),
        (ArtifactCacheSettings(), ArtifactCacheLimits()),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_limit_can_be_set_and_has_its_default_until_it_is(settings: Any, limits: Any) -> None:
    assert settings.limits() == limits
    # What is left out because of a defect has settings of its own, which all parts share.
    assert {field.name for field in fields(settings)} == {field.name for field in fields(limits)} - {"quarantine"}
    for field in fields(limits):
        if isinstance(value := getattr(limits, field.name), int):
            assert getattr(replace(settings, **{field.name: value + 1}).limits(), field.name) == value + 1


def test_the_limits_of_runs_and_topics_have_what_is_not_set_too() -> None:
    assert RunSettings().limits(KEEP_ALL) == RunLimits()
    assert TopicSettings().limits() == TopicLimits(watched_topics=200_000, poll_interval_ms=0)
