"""The files of Compose as Compose reads them: variables put in, files of variables read, one file over another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from oa_platform.config.loading import load
from oa_platform.config.shared import ServiceSettings
from tests.deploy.settings import SETTINGS
from tests.house.files import REPO

COMPOSE = REPO / "deploy" / "compose"
ONE_MACHINE, EDGE_TLS = "compose.yaml", "edge-tls.yaml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?([^}]*))?\}")

Document = Mapping[str, Any]


def project(variables: Mapping[str, str], *files: str) -> Document:
    """The project that the files make, with `variables` in them. Raises KeyError for one that must be given."""
    whole: Document = {}
    for name in files:
        text = (COMPOSE / name).read_text("utf-8")
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        whole = _merged(whole, yaml.safe_load(_VARIABLE.sub(lambda found: _value(found, variables), "\n".join(lines))))
    return whole


def environment_of(service: Document) -> dict[str, str]:
    """What a container finds: its files of variables, the later ones over the earlier, and its own over all."""
    found: dict[str, str] = {}
    for name in service.get("env_file", ()):
        lines = (COMPOSE / name).read_text("utf-8").splitlines()
        found |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    own: Mapping[str, str] = service.get("environment", {})
    return {**found, **own}


def mounts_of(service: Document) -> dict[str, str]:
    """Folder in the container -> folder or volume of the machine."""
    parts = [volume.split(":") for volume in service.get("volumes", ())]
    return {part[1]: part[0] for part in parts}


def on_this_machine(environment: Mapping[str, str], mounts: Mapping[str, str]) -> dict[str, str]:
    """The environment with each path in it led to where its file lies here."""
    found = dict(environment)
    for name, value in environment.items():
        for inside, outside in mounts.items():
            if value.startswith(f"{inside}/"):
                found[name] = value.replace(inside, outside, 1)
    return found


def settings_of(name: str, service: Document) -> ServiceSettings:
    """A service's settings, loaded as it does itself. Raises Refusal."""
    return load(SETTINGS[name], on_this_machine(environment_of(service), mounts_of(service)))


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, default, message = found.groups()
    given = variables.get(name) or default
    if given is None and message:
        raise KeyError(message)
    return given or ""


def _merged(under: Any, over: Any) -> Any:
    """Mappings key by key, lists one after the other, anything else from `over`: as Compose merges its files."""
    if isinstance(under, Mapping) and isinstance(over, Mapping):
        return {key: _merged(under.get(key), over.get(key)) for key in [*under, *(over.keys() - under.keys())]}
    if isinstance(under, list) and isinstance(over, list):
        return [*under, *over]
    return under if over is None else over
