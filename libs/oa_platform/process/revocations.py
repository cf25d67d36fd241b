"""Follows what control revokes, for services that accept tokens."""

from __future__ import annotations

import random

from oa_platform.auth.revocations import Revocations
from oa_platform.config.parsers import Secret, Target
from oa_platform.config.shared import GrpcClientSettings
from oa_platform.process.lifecycle import Process
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.revocation_watch import RevocationWatch


async def follow_revocations(
    process: Process, control: Target, client: GrpcClientSettings, service_token: Secret
) -> Revocations:
    """The revocations of control, kept up to date for as long as the process runs."""
    channel = await process.enter(open_channel(control, client, service_token, process.protection))
    revocations = Revocations(process.clock)
    watch = RevocationWatch(channel, revocations, process.clock, random.random)
    process.background("revocations", watch.run())
    process.readiness.add("revocations", watch.check)
    return revocations
