"""The objects of a cluster: what was rendered, with the Secrets that an installer and cert-manager make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from oa_testing.peers.authority import Authority
from tests.deploy.manifests import Document, name_of

Secrets = Mapping[str, Mapping[str, str]]


class Missing(Exception):
    """An object that another one refers to is not there."""


class Objects:
    """All documents, found by kind and name. `secrets`: those that the installer makes; certificates come here."""

    def __init__(self, documents: Sequence[Document], secrets: Secrets, authority: Authority | None = None) -> None:
        self._documents = documents
        self._authority = authority or Authority("OpenAgents internal CA")
        self._given = secrets
        self._secrets = {**secrets, **dict(_issued(self.of_kind("Certificate"), self._authority))}

    def edited(self, documents: Sequence[Document], *, without: str = "") -> Objects:
        """Others of the same installation and authority, which lack the Secret `without`."""
        return Objects(documents, {name: self._given[name] for name in self._given if name != without}, self._authority)

    def of_kind(self, kind: str) -> list[Document]:
        """All of one kind."""
        return [document for document in self._documents if document["kind"] == kind]

    def one(self, kind: str, name: str) -> Document:
        """That one; raises Missing."""
        for document in self.of_kind(kind):
            if name_of(document) == name:
                return document
        raise Missing(f"there is no {kind} {name}")

    def secret(self, name: str, *, optional: bool = False) -> Mapping[str, str]:
        """Key -> text; raises Missing, unless it is optional."""
        if name not in self._secrets and not optional:
            raise Missing(f"there is no Secret {name}")
        return self._secrets.get(name, {})

    def environment(self, container: Document) -> dict[str, str]:
        """What a container finds in its environment."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            found |= self._source(source)
        return found | {entry["name"]: entry["value"] for entry in container.get("env", ())}

    def _source(self, source: Mapping[str, Any]) -> Mapping[str, str]:
        [(kind, reference)] = source.items()
        if kind == "configMapRef":
            data: Mapping[str, str] = self.one("ConfigMap", reference["name"])["data"]
            return data
        return self.secret(reference["name"], optional=reference.get("optional", False))


def _issued(certificates: Sequence[Document], authority: Authority) -> Iterator[tuple[str, Mapping[str, str]]]:
    """What cert-manager makes of the Certificates: the authority's, and those that it issues."""
    for certificate in certificates:
        spec = certificate["spec"]
        if spec.get("isCA"):
            continue
        issued = authority.issue(*spec["dnsNames"])
        parts = {"tls.crt": issued.certificate, "tls.key": issued.key, "ca.crt": authority.certificate}
        yield spec["secretName"], {key: pem.decode("ascii") for key, pem in parts.items()}
