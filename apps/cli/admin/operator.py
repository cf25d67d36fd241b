"""Access of operators to control: its internal port, and the token that they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio

from apps.cli.settings import client_home, load_settings
from oa_base.refusal import Refusal
from oa_client.cpython.files import ClientHome
from oa_client.cpython.site import FileAuditHeads
from oa_localstack.installation.secrets import load_or_create
from oa_platform.config.callers import OPERATOR
from oa_platform.config.loading import group, load, peer_port, setting
from oa_platform.config.parsers import Secret, Target, secret_text, target
from oa_platform.config.shared import TlsSettings
from oa_platform.tls.names import check_has_name

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OperatorSettings:
    """What `oa admin user`, `session`, `org`, `audit`, `keys`, `policy`, `route` and `maintenance` read."""

    control: Target = setting(
        "OA_CONTROL_GRPC",
        target(),
        peer_port("control_grpc"),
        doc="Address of control's internal port, for `oa admin` with `user`, `session`, `org`, `audit`, `keys`, "
        "`policy`, `route` and `maintenance`. Where services have certificates, `OA_TLS_CERT_FILE`, `OA_TLS_KEY_FILE` "
        "and `OA_TLS_CA_FILE` name the operator's.",
    )
    token: Secret | None = setting(
        "OA_OPERATOR_TOKEN",
        secret_text("the operator's token"),
        None,
        doc="Token of the operator. Defaults to that of the local stack in OA_HOME.",
    )
    tls: TlsSettings = group(TlsSettings)


@asynccontextmanager
async def operators(what: Callable[[grpc.aio.Channel, str], T], env: Mapping[str, str]) -> AsyncIterator[T]:
    """Yield a client of one of control's services for operators: `what`, of `oa_client.cpython.operators`.

    Raises Refusal(invalid_setting).
    """
    settings = load(OperatorSettings, env)
    token = settings.token or _of_local_stack(env)
    async with _channel(settings) as channel:
        try:
            yield what(channel, token.reveal())
        except Refusal as refusal:
            if refusal.reason != "unavailable" or "OA_CONTROL_GRPC" not in refusal.message or _is_named(env):
                raise
            message = f"{refusal.message}, or start a local stack with `oa up`"
            raise Refusal(refusal.reason, message) from None


def _is_named(env: Mapping[str, str]) -> bool:
    """Whether control's address was given; otherwise it is that of a local stack."""
    return bool(env.get("OA_CONTROL_GRPC"))


def operators_audit_heads(env: Mapping[str, str]) -> FileAuditHeads:
    """Return the newest heads that operators verified on this machine, of the installation whose control they call.

    Raises Refusal(invalid_setting).
    """
    first = load(OperatorSettings, env).control.addresses[0]
    return FileAuditHeads(ClientHome(client_home(load_settings(env))).site(f"http://{first}"))


def _channel(settings: OperatorSettings) -> grpc.aio.Channel:
    """Return a channel to control, with our certificate if there is one, as services use for each other."""
    tls, options = settings.tls, [("grpc.enable_http_proxy", 0)]
    if tls.cert_file is None and tls.key_file is None and tls.ca_file is None:
        if not (settings.control.is_loopback or tls.allow_plaintext):
            where = f"OA_CONTROL_GRPC is {settings.control}, which isn't loopback"
            message = f"{where}; set OA_TLS_CERT_FILE, or OA_ALLOW_PLAINTEXT=true"
            raise Refusal("invalid_setting", message, field="OA_TLS_CERT_FILE")
        return grpc.aio.insecure_channel(str(settings.control), options=options)
    check_has_name(settings.control, "OA_CONTROL_GRPC")
    files = {"OA_TLS_CA_FILE": tls.ca_file, "OA_TLS_KEY_FILE": tls.key_file, "OA_TLS_CERT_FILE": tls.cert_file}
    credentials = grpc.ssl_channel_credentials(*(_read(file, variable) for variable, file in files.items()))
    return grpc.aio.secure_channel(str(settings.control), credentials, options=options)


def _read(file: Path | None, variable: str) -> bytes | None:
    try:
        return file.read_bytes() if file else None
    except OSError as error:
        message = f"{variable} can't be read ({type(error).__name__}); name a file of yours"
        raise Refusal("invalid_setting", message, field=variable) from None


def _of_local_stack(env: Mapping[str, str]) -> Secret:
    folder = load_settings(env).home.absolute() / "secrets"
    if not folder.is_dir():
        message = "OA_OPERATOR_TOKEN is not set, and there is no local stack; set it to the operator's token"
        raise Refusal("invalid_setting", message, field="OA_OPERATOR_TOKEN")
    return Secret(load_or_create(folder).service_tokens[OPERATOR])
