"""The secrets of one installation: made once, kept with mode 0600, never printed.

Each is a file of its own below `home/secrets`. Services get the secrets that they read as files (keys) as paths, and
the others in their environment. Each is marked as made for development: a service that runs in production refuses it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oa_base.refusal import Refusal
from oa_localstack.files import replace
from oa_localstack.postgres.server import SUPERUSER
from oa_platform.auth.keys import dump_key, generate_key
from oa_platform.config.callers import CALLERS
from oa_platform.config.production import DEVELOPMENT_MARK
from oa_platform.postgres.planes import ROLES

_TOKEN_BYTES = 32


@dataclass(frozen=True, repr=False)
class Secrets:
    """All secrets of an installation. `database_passwords`: role -> password; `service_tokens`: caller -> token."""

    database_passwords: dict[str, str]
    service_tokens: dict[str, str]
    signing_key_file: Path
    """Control's first token signing key, PEM PKCS#8, Ed25519."""
    hmac_key_file: Path
    """The key with which control hashes codes and refresh tokens."""
    receipt_key_file: Path
    """Runtime's receipt signing key, PEM PKCS#8, Ed25519."""


def load_or_create(directory: Path) -> Secrets:
    """Return the secrets in `directory`, after making those that are missing.

    Raises Refusal(invalid_setting) when others may read one, because it is no longer a secret then.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Secrets(
        database_passwords={role: _text(directory / f"db-{role}", _token) for role in (SUPERUSER, *ROLES)},
        service_tokens={service: _text(directory / f"service-{service}", _token) for service in CALLERS},
        signing_key_file=_ensured(directory / "signing-key.pem", _ed25519_pem),
        hmac_key_file=_ensured(directory / "hmac-key", _hmac_key),
        receipt_key_file=_ensured(directory / "receipt-key.pem", _ed25519_pem),
    )


def _token() -> bytes:
    return f"{DEVELOPMENT_MARK}-{secrets.token_urlsafe(_TOKEN_BYTES)}".encode()


def _hmac_key() -> bytes:
    return f"{DEVELOPMENT_MARK}-{secrets.token_hex(_TOKEN_BYTES)}".encode()


def _ed25519_pem() -> bytes:
    # PEM allows a line of text before the key (RFC 7468, 2).
    return f"{DEVELOPMENT_MARK}\n{dump_key(generate_key())}".encode()


def _text(path: Path, make: Callable[[], bytes]) -> str:
    return _ensured(path, make).read_text()


def _ensured(path: Path, make: Callable[[], bytes]) -> Path:
    """Make the file if there is none; the lock on the home keeps others from doing so at the same time."""
    if not path.exists():
        replace(path, make())
    if path.stat().st_mode & 0o077:
        message = f"{path} can be read by others; make a new installation, or chmod 600 it if nobody has read it"
        raise Refusal("invalid_setting", message)
    return path
