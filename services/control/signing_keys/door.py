"""SigningKeyService, for operators on the internal port; and the stored form of private keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from oa_platform.auth.keys import SigningKey, dump_key, load_key
from oa_platform.telemetry.context import current_request_id
from openagents.control.v1 import signing_key_service_pb2 as pb
from openagents.control.v1.signing_key_service_pb2_grpc import SigningKeyServiceServicer
from services.control.audit.domain import Origin
from services.control.calls.app import timestamp
from services.control.signing_keys.app import ShownKey, SigningKeys
from services.control.signing_keys.domain import ALWAYS, KeyState

_PURPOSE = b"openagents.signing-key.v1"
_NONCE_BYTES = 12
_STATES = {state: pb.SigningKeyState.Value(f"SIGNING_KEY_STATE_{state.value.upper()}") for state in KeyState}


class SealedKeys:
    """See `app.KeyBox`. AES-256-GCM, under a key that HKDF derives from the HMAC key for this purpose alone."""

    def __init__(self, hmac_key: bytes) -> None:
        self._aead = AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(hmac_key))

    def seal(self, key: SigningKey) -> bytes:
        """Return a nonce, and the key encrypted with it. The id of the key is bound to the ciphertext."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, dump_key(key).encode(), key.kid.encode())

    def open(self, key_id: str, sealed: bytes) -> SigningKey | None:
        """The key; None if `sealed` was sealed in another way."""
        try:
            pem = self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key_id.encode())
            key = load_key(pem.decode())
        except (InvalidTag, ValueError):
            return None
        return key if key.kid == key_id else None


class SigningKeyApi(SigningKeyServiceServicer):
    """The methods of SigningKeyService."""

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys

    async def ListSigningKeys(self, request: pb.ListSigningKeysRequest, context: Any) -> pb.ListSigningKeysResponse:
        """Return all keys."""
        return pb.ListSigningKeysResponse(keys=_shown(await self._keys.list()))

    async def RotateSigningKey(self, request: pb.RotateSigningKeyRequest, context: Any) -> pb.RotateSigningKeyResponse:
        """Make the next key."""
        origin = Origin.of_operator(current_request_id())
        return pb.RotateSigningKeyResponse(keys=_shown(await self._keys.rotate(origin, request.stolen_key_id)))


def _shown(keys: Sequence[ShownKey]) -> list[pb.SigningKey]:
    return [_message(one) for one in keys]


def _message(shown: ShownKey) -> pb.SigningKey:
    record = shown.record
    of_settings = record.sealed is None
    return pb.SigningKey(
        key_id=record.key_id,
        state=_STATES[shown.state],
        from_settings=of_settings,
        create_time=None if of_settings else timestamp(record.made_at),
        sign_time=None if of_settings or record.signs_from == ALWAYS else timestamp(record.signs_from),
        end_time=timestamp(record.ends_at) if record.ends_at else None,
    )
