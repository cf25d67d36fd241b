"""The secrets of an installation: generates all of them, as files and as Kubernetes Secrets.

A Secret is a folder, and each of its keys is a file. deploy/k8s and deploy/compose refer to them by these names.
Services read them as files (`OA_…_FILE`), except for the hashes of their callers' tokens. These are not secret by
themselves: they are a variable, and are also in a file `<secret>.env`, which Compose reads.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from oa_base.refusal import Refusal
from oa_client.cpython.files import sync_folder
from oa_platform.auth.keys import dump_key, generate_key
from oa_platform.config.callers import CALLERS, OPERATOR, SERVICES, accepted_services
from oa_platform.config.dsn import check_database_url
from oa_platform.postgres.planes import DATABASE, OWNER, PLANES, ROLES

Secrets = Mapping[str, Mapping[str, str]]
"""Secret name -> key -> text."""

MANIFEST = "secrets.json"
"""The Secrets that our pods use."""
DATABASE_MANIFEST = "database-secrets.json"
"""The roles' passwords, for a PostgreSQL in the cluster (deploy/k8s/components/postgres)."""
POSTGRES_SECRET = "openagents-postgres"
"""The superuser's password, for installations that run PostgreSQL themselves, as deploy/compose does."""
OPERATOR_SECRET = f"openagents-{OPERATOR}"
"""The operator's token, for people who call control with `oa admin`. No pod has it."""
_CALLERS = "openagents-callers-of-"
_TOKEN_BYTES = 32
_PLACE = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
# CloudNativePG gives a role its new password at once when its Secret changes.
_RELOADED = {"cnpg.io/reload": "true"}


def new_secrets(database: str) -> dict[str, dict[str, str]]:
    """Return all secrets of an installation whose PostgreSQL is at `database` (`host:port`, or several with commas).

    Raises Refusal(invalid_value) if `database` is no such place.
    """
    try:
        if not all(map(_PLACE.fullmatch, database.split(","))):
            raise ValueError("not a place")
        check_database_url(f"postgresql://role:password@{database}/{DATABASE}")
    except ValueError:
        raise Refusal(
            "invalid_value", "the option --database is no host:port; give db.example:5432", field="database"
        ) from None
    tokens = {service: secrets.token_urlsafe(_TOKEN_BYTES) for service in CALLERS}
    passwords = {role: secrets.token_urlsafe(_TOKEN_BYTES) for role in ROLES}
    roles = {plane.service: plane.role for plane in PLANES}
    made: dict[str, dict[str, str]] = {}
    for service in SERVICES:
        own = made[f"openagents-{_label(service)}"] = {"service-token": tokens[service]}
        if service in roles:
            own["database-url"] = _dsn(roles[service], passwords, database)
        if service in SERVICES:
            made[f"{_CALLERS}{_label(service)}"] = {"OA_ACCEPTED_SERVICES": accepted_services(service, tokens)}
    made["openagents-control"] |= {
        "signing-key.pem": dump_key(generate_key()),
        "hmac-key": secrets.token_hex(_TOKEN_BYTES),
    }
    made["openagents-runtime"]["receipt-key.pem"] = dump_key(generate_key())
    made["openagents-migrate"] = {"database-url": _dsn(OWNER, passwords, database)}
    made |= {role_secret(role): {"username": role, "password": password} for role, password in passwords.items()}
    made[OPERATOR_SECRET] = {"service-token": tokens[OPERATOR]}
    made[POSTGRES_SECRET] = {"superuser-password": secrets.token_urlsafe(_TOKEN_BYTES)}
    return made


def write_secrets(folder: Path, made: Secrets, namespace: str) -> None:
    """Write each key as `folder/<secret>/<key>`, and all of them as two manifests, readable only by the owner.

    The folder is there with all of them, or not at all. Raises Refusal(invalid_value) if it is not empty: replacing a
    secret by accident locks everybody out.
    """
    place = folder.resolve()
    if place.exists() and any(place.iterdir()):
        raise _not_empty(folder)
    if place == Path.cwd():
        message = f"{folder} is the folder that you are in, and a new one takes its place; name a folder in it"
        raise Refusal("invalid_value", message, field="folder")
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Only its owner may look into it from the start.
    staging = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
    try:
        _fill(staging, made, namespace)
        staging.rename(place)  # an empty folder gives way
    except BaseException as error:
        shutil.rmtree(staging)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _not_empty(folder) from None
        raise
    sync_folder(place.parent)


def _not_empty(folder: Path) -> Refusal:
    message = f"{folder} is not empty; name a new folder, or keep the secrets that are there"
    return Refusal("invalid_value", message, field="folder")


def _fill(folder: Path, made: Secrets, namespace: str) -> None:
    for name, keys in made.items():
        (folder / name).mkdir(mode=0o700)
        for key, text in keys.items():
            _write(folder / name / key, text)
        if name.startswith(_CALLERS):
            _write(folder / f"{name}.env", "".join(f"{key}={text}\n" for key, text in keys.items()))
    of_roles = {role_secret(role) for role in ROLES}
    pods = {name: keys for name, keys in made.items() if name not in {OPERATOR_SECRET, POSTGRES_SECRET, *of_roles}}
    roles = {name: keys for name, keys in made.items() if name in of_roles}
    _write(folder / MANIFEST, _as_json(_manifest(pods, namespace, "Opaque", {})))
    _write(folder / DATABASE_MANIFEST, _as_json(_manifest(roles, namespace, "kubernetes.io/basic-auth", _RELOADED)))
    for each in (*(folder / name for name in made), folder):
        sync_folder(each)


def read_passwords(folder: Path) -> dict[str, str]:
    """Return role -> password, as `write_secrets` wrote them. Raises Refusal(invalid_value) if they are not there."""
    try:
        return {role: (folder / role_secret(role) / "password").read_text("utf-8") for role in ROLES}
    except OSError:
        message = f"{folder} holds no passwords of roles; make them: oa admin secrets new {shlex.quote(str(folder))}"
        raise Refusal("invalid_value", message, field="folder") from None


def role_secret(role: str) -> str:
    """Return the name of the Secret with the password of a role."""
    return f"openagents-database-{role.replace('_', '-')}"


def _manifest(made: Secrets, namespace: str, kind: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the secrets as a Kubernetes List for `kubectl apply -f`."""
    items = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": kind,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/part-of": "openagents", **labels},
            },
            "stringData": dict(keys),
        }
        for name, keys in made.items()
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _as_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600, exist_ok=False)
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _label(service: str) -> str:
    return service.replace("_", "-")


def _dsn(role: str, passwords: Mapping[str, str], database: str) -> str:
    return f"postgresql://{role}:{quote(passwords[role], safe='')}@{database}/{DATABASE}"
