"""The schemas of other projects' resources, read from their own Go modules: as strict as a Kubernetes API server."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema
import yaml

from tests.deploy.go_modules import fetched
from tests.deploy.manifests import SafeLoader

MODULES = {
    "cert-manager.io": ("github.com/cert-manager/cert-manager@v1.19.1", "deploy/crds"),
    "gateway.networking.k8s.io": ("sigs.k8s.io/gateway-api@v1.4.0", "config/crd/standard"),
    "monitoring.coreos.com": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
    ),
    "postgresql.cnpg.io": ("github.com/cloudnative-pg/cloudnative-pg@v1.27.1", "config/crd/bases"),
}


class _Loader(SafeLoader):
    """YAML 1.2 has no special value `=`; PyYAML, which reads 1.1, does."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: str(node.value))


def is_custom(document: Any) -> bool:
    """Whether the object is of a kind that Kubernetes itself doesn't have."""
    return document["apiVersion"].partition("/")[0] in MODULES


def problems(document: Any) -> list[str]:
    """What an API server with these resources would refuse in the object. Raises SchemasMissing."""
    group, _, version = document["apiVersion"].partition("/")
    schema = _schemas(group, document["kind"])[version]
    found = jsonschema.Draft7Validator(schema).iter_errors(json.loads(json.dumps(document)))
    return [f"{document['kind']}/{document['metadata']['name']} {error.json_path}: {error.message}" for error in found]


@cache
def _schemas(group: str, kind: str) -> dict[str, Any]:
    """Version -> schema."""
    module, folder = MODULES[group]
    for path in sorted((fetched(module) / folder).glob("*.yaml")):
        text = path.read_text("utf-8")
        if f"    kind: {kind}\n" in text:
            (definition,) = (found for found in yaml.load_all(text, _Loader) if found)
            versions = definition["spec"]["versions"]
            return {version["name"]: _whole(version["schema"]["openAPIV3Schema"]) for version in versions}
    raise AssertionError(f"{module} has no {kind}")


def _whole(schema: Any) -> Any:
    """The schema of a whole object: what the API server knows of every object is added."""
    own = {**schema["properties"], "metadata": {"type": "object"}}
    return _strict({**schema, "properties": own})


def _strict(schema: Any) -> Any:
    """The schema without room for what it doesn't name; an API server would drop that in silence."""
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict_part(key, value) for key, value in schema.items()}
    if "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if made.get("x-kubernetes-int-or-string"):
        made = {key: value for key, value in made.items() if key not in ("type", "anyOf", "pattern")}
    return made


def _strict_part(key: str, value: Any) -> Any:
    if key == "properties":
        return {name: _strict(part) if name != "metadata" else part for name, part in value.items()}
    if key in ("items", "additionalProperties"):
        return _strict(value)
    return value
