"""The environment of each service of a local stack. docs/config.md says what every variable means."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from oa_localstack.installation.ports import HOST, USES, Ports
from oa_localstack.installation.secrets import Secrets
from oa_platform.config.callers import accepted_services
from oa_platform.config.production import DEVELOPMENT
from oa_platform.postgres.planes import DATABASE, PLANES

Environment = dict[str, str]


def service_environment(
    service: str, *, ports: Ports, secrets: Secrets, home: Path, inherited: Mapping[str, str]
) -> Environment:
    """The environment of one service; holds secrets.

    `inherited` is our own environment. It goes in first, so that OA_LOG_LEVEL, OTEL_… and a service's own limits can be
    set where the stack is started; variables that the stack decides override it.
    """
    common = {
        "OA_ENV": DEVELOPMENT,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),  # the packages that we can import
        **{use.env: str(ports.of(use)) for use in USES},
        "OA_SERVICE_TOKEN": secrets.service_tokens[service],
        "OA_ACCEPTED_SERVICES": accepted_services(service, secrets.service_tokens),
        "OA_CONTROL_URL": f"http://{HOST}:{ports.control_http}",
        "OA_CONTROL_GRPC": f"{HOST}:{ports.control_grpc}",
        "OA_RUNTIME_GRPC": f"{HOST}:{ports.runtime_grpc}",
        "OA_PROJECTOR_GRPC": f"{HOST}:{ports.projector_grpc}",
        "OA_KHALA_URL": khala_url(ports),
    }
    defaults = {"OA_LOG_FORMAT": "json", "OA_LOG_LEVEL": "info"}
    decided = {**common, **_own(service, ports, secrets, home)}
    # A service refuses a secret that it gets in both ways.
    other_ways = {f"{name}_FILE" for name in decided} | {name.removesuffix("_FILE") for name in decided}
    kept = {name: value for name, value in inherited.items() if name not in other_ways}
    return {**defaults, **kept, **decided}


def khala_url(ports: Ports) -> str:
    """Where clients open the WebSocket."""
    return f"ws://{HOST}:{ports.khala_ws}/khala/v1/ws"


def role_dsn(role: str, ports: Ports, secrets: Secrets, database: str = DATABASE) -> str:
    """The DSN of a role; holds its password."""
    return f"postgresql://{role}:{secrets.database_passwords[role]}@{HOST}:{ports.postgres}/{database}"


def mail_file(home: Path) -> Path:
    """Where the console provider of a development stack leaves sign-in codes, one JSON object per line."""
    return home / "dev-mail.jsonl"


def _own(service: str, ports: Ports, secrets: Secrets, home: Path) -> Environment:
    """The variables of this service alone: where it listens, its database, its keys."""
    own = {f"OA_{use.kind.upper()}_ADDRESS": f"{HOST}:{ports.of(use)}" for use in USES if use.owner == service}
    for plane in PLANES:
        if plane.service == service:
            own["OA_DATABASE_URL"] = role_dsn(plane.role, ports, secrets)
    if service == "control":
        own |= {
            "OA_SIGNING_KEY_FILE": str(secrets.signing_key_file),
            "OA_HMAC_KEY_FILE": str(secrets.hmac_key_file),
            "OA_CODE_PROVIDER": "console",
            "OA_DEV_MAIL_FILE": str(mail_file(home)),
        }
    else:
        own["OA_JWKS_CACHE_FILE"] = str(home / "cache" / f"{service}-jwks.json")
    if service == "runtime":
        own["OA_RECEIPT_KEY_FILE"] = str(secrets.receipt_key_file)
    return own
