"""An image's bill of materials, as CycloneDX JSON: the packages of its lock, and those of its base if we made it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from packaging.markers import Marker, default_environment

_PIN = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\\n]*[^\\\s]))?(?P<rest>(?: \\\n    \S+)*)", re.M
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
Document = dict[str, object]


def bill(
    name: str, version: str, revision: str, lock: str, debian: Iterable[Mapping[str, str]], epoch_s: int
) -> Document:
    """The document. The same input gives the same document: its serial number is made from it."""
    components = [*_python(lock), *(_debian(fields) for fields in debian)]
    seed = "\n".join([name, version, revision, *(str(one["bom-ref"]) for one in components)])
    root = {"type": "container", "name": f"openagents-{name}", "version": version, "bom-ref": f"openagents-{name}"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, seed)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": root,
            "properties": [{"name": "openagents:revision", "value": revision}],
        },
        "components": components,
    }


def pins(lock: str) -> dict[str, str]:
    """Package -> version: the part of a lock that an image on Linux installs."""
    return {match["name"]: match["version"] for match in _PIN.finditer(lock) if _applies(match["marker"])}


def _applies(marker: str | None) -> bool:
    environment = {**default_environment(), "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    return marker is None or Marker(marker.strip()).evaluate(environment)  # type: ignore[arg-type]


def _python(lock: str) -> list[Document]:
    """The components of a lock. Its hashes are those of a release's files for all platforms: they are evidence."""
    return [
        {
            "type": "library",
            "name": match["name"],
            "version": match["version"],
            "purl": (purl := f"pkg:pypi/{match['name']}@{quote(match['version'])}"),
            "bom-ref": purl,
            "externalReferences": [
                {
                    "type": "distribution",
                    "url": purl,
                    "hashes": [{"alg": "SHA-256", "content": digest} for digest in _HASH.findall(match["rest"])],
                }
            ],
        }
        for match in _PIN.finditer(lock)
        if _applies(match["marker"])
    ]


def _debian(fields: Mapping[str, str]) -> Document:
    name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
    purl = f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={architecture}"
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
