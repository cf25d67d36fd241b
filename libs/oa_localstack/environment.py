"""What each service of a local stack finds in its environment. docs/config.md says what every variable means."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from oa_localstack.ports import HOST, USES, Ports
from oa_localstack.roles import DATABASE, PLANES
from oa_localstack.secrets import SERVICES, Secrets
from oa_platform.config.production import DEVELOPMENT

ACCEPTED = {
    "control": ("khala_gateway",),
    "runtime": ("control", "projector", "khala_gateway"),
    "projector": ("control", "khala_gateway"),
    "khala_gateway": ("control",),
}
"""Who may call whom: service -> the services whose token it takes."""

Environment = dict[str, str]


def service_environment(
    service: str, *, ports: Ports, secrets: Secrets, home: Path, inherited: Mapping[str, str]
) -> Environment:
    """The environment of one service; holds secrets.

    `inherited` is ours. It goes in first, so that OA_LOG_LEVEL, OTEL_… and a service's own limits can be set where
    the stack is started; what the stack decides goes over it.
    """
    assert service in SERVICES
    control_http = f"http://{HOST}:{ports.control_http}"
    common = {
        "OA_ENV": DEVELOPMENT,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),  # the packages that we see
        **{use.env: str(ports.of(use)) for use in USES},
        "OA_SERVICE_TOKEN": secrets.service_tokens[service],
        "OA_ACCEPTED_SERVICES": _accepted(service, secrets),
        "OA_CONTROL_URL": control_http,
        "OA_RUNTIME_GRPC": f"{HOST}:{ports.runtime_grpc}",
        "OA_PROJECTOR_GRPC": f"{HOST}:{ports.projector_grpc}",
        "OA_KHALA_URL": khala_url(ports),
    }
    defaults = {"OA_LOG_FORMAT": "json", "OA_LOG_LEVEL": "info"}
    own = _OWN[service](ports, secrets, home)
    return {**defaults, **inherited, **common, **own, **_database(service, ports, secrets)}


def khala_url(ports: Ports) -> str:
    """Where clients open the WebSocket."""
    return f"ws://{HOST}:{ports.khala_ws}/khala/v1/ws"


def role_dsn(role: str, ports: Ports, secrets: Secrets, database: str = DATABASE) -> str:
    """The DSN of a role; holds its password."""
    return f"postgresql://{role}:{secrets.database_passwords[role]}@{HOST}:{ports.postgres}/{database}"


def mail_file(home: Path) -> Path:
    """Where the console provider of a development stack leaves sign-in codes, one JSON object a line."""
    return home / "dev-mail.jsonl"


def _accepted(service: str, secrets: Secrets) -> str:
    callers = ACCEPTED[service]
    hashes = {caller: hashlib.sha256(secrets.service_tokens[caller].encode()).hexdigest() for caller in callers}
    return ",".join(f"{caller}={digest}" for caller, digest in hashes.items())


def _database(service: str, ports: Ports, secrets: Secrets) -> Environment:
    role = next((plane.role for plane in PLANES if plane.service == service), None)
    return {"OA_DATABASE_URL": role_dsn(role, ports, secrets)} if role else {}


def _control(ports: Ports, secrets: Secrets, home: Path) -> Environment:
    return {
        "OA_HTTP_ADDRESS": f"{HOST}:{ports.control_http}",
        "OA_GRPC_ADDRESS": f"{HOST}:{ports.control_grpc}",
        "OA_OPS_ADDRESS": f"{HOST}:{ports.control_ops}",
        "OA_SIGNING_KEY_FILE": str(secrets.signing_key_file),
        "OA_HMAC_KEY_FILE": str(secrets.hmac_key_file),
        "OA_CODE_PROVIDER": "console",
        "OA_DEV_MAIL_FILE": str(mail_file(home)),
    }


def _runtime(ports: Ports, secrets: Secrets, home: Path) -> Environment:
    return {
        "OA_GRPC_ADDRESS": f"{HOST}:{ports.runtime_grpc}",
        "OA_OPS_ADDRESS": f"{HOST}:{ports.runtime_ops}",
        "OA_RECEIPT_KEY_FILE": str(secrets.receipt_key_file),
        "OA_JWKS_CACHE_FILE": _jwks_cache("runtime", home),
    }


def _projector(ports: Ports, secrets: Secrets, home: Path) -> Environment:
    return {
        "OA_GRPC_ADDRESS": f"{HOST}:{ports.projector_grpc}",
        "OA_OPS_ADDRESS": f"{HOST}:{ports.projector_ops}",
        "OA_JWKS_CACHE_FILE": _jwks_cache("projector", home),
    }


def _gateway(ports: Ports, secrets: Secrets, home: Path) -> Environment:
    return {
        "OA_WS_ADDRESS": f"{HOST}:{ports.khala_ws}",
        "OA_GRPC_ADDRESS": f"{HOST}:{ports.gateway_grpc}",
        "OA_OPS_ADDRESS": f"{HOST}:{ports.gateway_ops}",
        "OA_JWKS_CACHE_FILE": _jwks_cache("khala_gateway", home),
    }


def _jwks_cache(service: str, home: Path) -> str:
    return str(home / "cache" / f"{service}-jwks.json")


_OWN = {"control": _control, "runtime": _runtime, "projector": _projector, "khala_gateway": _gateway}
