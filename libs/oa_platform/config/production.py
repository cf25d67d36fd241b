"""Settings that a service refuses to run with, unless it is told that nothing depends on it (OA_ENV=development).

A settings class reports what it refuses in `production_problems()`; the rules for all secrets are here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from oa_platform.config.loading import Problem, groups_of, values_of
from oa_platform.config.parsers import Secret

DEVELOPMENT, PRODUCTION = "development", "production"
DEVELOPMENT_MARK = "made-for-development"
"""A part of every secret that a local stack makes."""
MIN_SECRET_CHARS = 32
MIN_DIFFERENT = 8
"""Minimum number of different characters or bytes in a secret. A random one of 32 has about twice as many."""


def production_problems(settings: object) -> Iterator[Problem]:
    """Everything that production refuses in loaded settings."""
    for one in groups_of(settings):
        yield from getattr(one, "production_problems", tuple)()
    for setting, value in values_of(settings):
        if isinstance(value, Secret):
            yield from _secret_problems(setting.variable, value)


def _secret_problems(variable: str, secret: Secret) -> Iterator[Problem]:
    if DEVELOPMENT_MARK in secret.reveal():
        yield variable, f"{variable} was made by a local stack; make one for this installation alone"
    if secret.source is not None and others_may_read(secret.source.stat()):
        text = f"{variable}_FILE names a file that others may read; make the secret anew, with mode 0400 or 0600"
        yield f"{variable}_FILE", text


def others_may_read(status: os.stat_result) -> bool:
    """Whether a file's mode gives more access than this process needs.

    The owner of a file needs no group. In Kubernetes, root owns the files of a secret, and a process that isn't root
    gets access by their group.
    """
    if status.st_uid == os.geteuid():
        return bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IRWXO))


def weakness(secret: str | bytes) -> str:
    """Why a secret could be guessed, worded to follow its name ("has …"); empty if nothing shows that it could."""
    if len(secret) < MIN_SECRET_CHARS:
        return f"has less than {MIN_SECRET_CHARS} characters"
    if len(set(secret)) < MIN_DIFFERENT:
        return f"has less than {MIN_DIFFERENT} different characters"
    if _is_periodic(secret):
        return "repeats itself"
    return ""


def weak(variable: str, secret: str | bytes) -> Iterator[Problem]:
    """The problem with a secret that could be guessed."""
    why = weakness(secret)
    if why:
        yield variable, f"{variable} {why}; make a random one, such as openssl rand -base64 48 writes"


def _is_periodic(secret: str | bytes) -> bool:
    length = len(secret)
    return any((secret[:period] * length)[:length] == secret for period in range(1, length // 2 + 1))
